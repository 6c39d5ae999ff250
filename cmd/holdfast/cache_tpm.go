package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/cache"
	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/tpm"
)

// openSealed opens the cache on the disk whose entries the TPM seals.
func (a *app) openSealed(ctx context.Context, f *identityFlags) (cache.Store, error) {
	dir, err := sealedDir()
	if err != nil {
		return nil, err
	}
	device, err := a.openTPM(ctx, f)
	if err != nil {
		return nil, err
	}
	return &cache.Sealed{
		Store: &cache.Files{Dir: dir},
		Box:   &tpmBox{ctx: ctx, device: device, warn: a.say.Warn, options: tpm.SealOptions{OwnerAuth: f.tpmOptions(a).OwnerAuth}},
	}, nil
}

// hasSealed reports whether something was ever put into that cache.
func hasSealed() bool {
	dir, err := stateDir()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, sealedName))
	return err == nil
}

// sealedName is the directory's in the state directory.
const sealedName = "sessions"

func sealedDir() (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, sealedName)
	return dir, cache.OwnDir(dir)
}

// boxTimeout bounds one use of the TPM for the cache: a session can be had
// without it.
const boxTimeout = 10 * time.Second

// A tpmBox is a [cache.Box] in a TPM, for the length of one command.
type tpmBox struct {
	ctx     context.Context
	device  *tpm.Device
	options tpm.SealOptions
	warn    func(string)
	warned  bool
}

// tell says once why the cache, which was asked for, does not work.
func (b *tpmBox) tell(err error) {
	if err == nil || b.warned {
		return
	}
	b.warned = true
	b.warn("--cache tpm: " + term.OneLine(err))
}

func (*tpmBox) Name() string { return "tpm" }

func (b *tpmBox) Seal(key []byte) (text []byte, err error) {
	defer func() { b.tell(err) }()
	ctx, cancel := context.WithTimeout(b.ctx, boxTimeout)
	defer cancel()
	sealed, err := tpm.Seal(ctx, b.device, key, b.options)
	if err != nil {
		return nil, err
	}
	return sealed.Marshal()
}

func (b *tpmBox) Open(text []byte) (key []byte, err error) {
	defer func() { b.tell(err) }()
	sealed, err := tpm.ParseSealed(text)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, boxTimeout)
	defer cancel()
	return sealed.Unseal(ctx, b.device, b.options)
}
