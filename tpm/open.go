package tpm

import (
	"context"
	"crypto"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// Options say how to use a key. The zero value serves a key without a password,
// or with a PCR policy.
type Options struct {
	// Name stands for the key in errors and in what Auth is asked: the file's
	// name. If empty, the handle, or "TPM key".
	Name string

	// Auth returns the key's authorization value. It is called when the key is
	// first used, at most once, and only if the value is not known to be empty.
	// If it is nil, a key file that says there is a value is an error that
	// wraps signer.ErrPINRequired, and a persistent key, which says nothing, is
	// tried without one.
	Auth AuthFunc

	// ParentAuth returns the authorization value of the parent of a key file's
	// key, if that is a persistent key; nil means that it is empty.
	ParentAuth AuthFunc

	// OwnerAuth returns the authorization value of the hierarchy that the
	// parent is made in; nil means that it is empty.
	OwnerAuth AuthFunc

	// Policy is executed before each use of the key. If it is nil, the key
	// file's own is.
	Policy Policy

	// Inputs are for the policy.
	Inputs policy.Inputs

	// Timeout bounds a signature made with Sign or SignMessage, the wait for
	// other users of the TPM included. 0 means a minute.
	Timeout time.Duration

	// Brief says that there will be one signature: after it, all that is in the
	// TPM is flushed and the TPM given up in the background, while the caller
	// goes on. Another one begins anew.
	Brief bool

	// CloseDevice makes Close close the Device too.
	CloseDevice bool
}

// OpenKey returns the key of a key file. It does not use the TPM yet.
func OpenKey(_ context.Context, d *Device, file *KeyFile, opts Options) (*Key, error) {
	if opts.Name == "" {
		opts.Name = "TPM key"
	}
	if file.public == nil { // not from ParseKeyFile
		f := *file
		f.name.Buffer = nameOf(tpm2.Marshal(f.Public))
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", opts.Name, err)
		}
		file = &f
	}
	k, err := newKey(d, file.Public, file.public, file.name, file, opts)
	if err != nil {
		return nil, err
	}
	k.file = file
	return k, nil
}

// OpenHandle returns the persistent key that ref names: "handle:0x81000001",
// "handle:81000001" or without "handle:". It reads the key's public area, and
// returns an error that wraps signer.ErrKeyNotFound if there is none.
func OpenHandle(ctx context.Context, d *Device, ref string, opts Options) (*Key, error) {
	h, err := ParseHandle(ref)
	if err != nil {
		return nil, err
	}
	if opts.Name == "" {
		opts.Name = fmt.Sprintf("handle:%#x", uint32(h))
	}
	var ob *object
	if err := d.do(ctx, func(o *op) (err error) {
		ob, err = o.persistent(h)
		return err
	}); err != nil {
		return nil, err
	}
	if err := checkUsable(ob.public); err != nil {
		return nil, fmt.Errorf("%s: %w", opts.Name, err)
	}
	pub, err := publicKey(ob.public)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", opts.Name, err)
	}
	k, err := newKey(d, *ob.public, pub, ob.name, nil, opts)
	if err != nil {
		return nil, err
	}
	k.handle = h
	return k, nil
}

// ParseHandle reads a reference to a persistent key.
func ParseHandle(ref string) (tpm2.TPMHandle, error) {
	s := ref
	if scheme, rest, ok := strings.Cut(s, ":"); ok && strings.EqualFold(scheme, signer.SchemeHandle) {
		s = rest
	}
	hex := strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || !isPersistent(tpm2.TPMHandle(n)) {
		return 0, signer.WithHint(fmt.Errorf("%q: %w: not the handle of a persistent key", ref, signer.ErrMalformed),
			"persistent keys have handles from 0x81000000 to 0x81ffffff: handle:0x81000001")
	}
	return tpm2.TPMHandle(n), nil
}

func newKey(d *Device, public tpm2.TPMTPublic, pub crypto.PublicKey, name tpm2.TPM2BName, file *KeyFile, opts Options) (*Key, error) {
	k := &Key{d: d, opts: opts, name: opts.Name, public: public, pub: pub, place: resident{name: name}}
	if err := k.prepare(file); err != nil {
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	return k, nil
}

func (k *Key) prepare(file *KeyFile) (err error) {
	if k.fixed, err = fixedScheme(&k.public); err != nil {
		return err
	}
	if k.policy, err = policyOf(&k.public, file, k.opts.Policy); err != nil {
		return err
	}
	da := !k.public.ObjectAttributes.NoDA
	k.cred = &credential{what: k.name, name: k.place.name.Buffer, da: da, ask: k.opts.Auth, mend: k.d.hints.Key}
	switch {
	case k.policy != nil && !k.policy.NeedsAuth(), file != nil && file.EmptyAuth != nil && *file.EmptyAuth:
		k.cred.ask, k.cred.asked, k.cred.vouch = nil, true, true
	case !da && (file == nil || file.EmptyAuth == nil || k.cred.ask == nil):
		k.tryEmpty = true
	case file != nil && k.cred.ask == nil:
		return signer.WithHint(signer.ErrPINRequired,
			"say where its password comes from; if it has none, as those of tpm2_encodeobject, say that")
	}
	return nil
}
