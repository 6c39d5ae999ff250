package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// An identityKeeper keeps a key open with its certificate, and follows them
// when they change. Key and certificate are always a pair: what does not fit,
// cannot be read or changes while it is read is left alone, and the pair there
// was stays in use. The roles that name the same identity share one keeper.
type identityKeeper struct {
	a       *app
	f       *identityFlags
	log     *slog.Logger
	opening *sync.Mutex // around whatever a opens

	certRef, keyRef signer.Reference

	mu     sync.Mutex
	users  int // roles
	held   *heldIdentity
	stamp  stamps
	dirty  bool   // the key itself has to be opened again
	warned string // the last reason not to follow a change
}

// A heldIdentity is an open key. Its identity is replaced when only the
// certificate was.
type heldIdentity struct {
	owner   *signer.Identity // closes the key
	id      *signer.Identity
	leases  int
	retired bool
}

// stamps tell whether files have changed.
type stamps struct{ key, certificates [sha256.Size]byte }

// errChanging says that the files were written to meanwhile.
var errChanging = errors.New("key or certificate changed while they were read")

func newIdentityKeeper(a *app, f *identityFlags, log *slog.Logger, opening *sync.Mutex) *identityKeeper {
	k := &identityKeeper{a: a, f: f, log: log, opening: opening, certRef: signer.ParseReference(f.certificate), keyRef: signer.ParseReference(f.privateKey)}
	if k.keyRef.IsZero() {
		k.keyRef = k.certRef
	}
	return k
}

// lease returns the identity as it is now. The caller ends the lease with
// done, and tells it how the use went.
func (k *identityKeeper) lease(ctx context.Context) (id *signer.Identity, done func(error), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.follow(ctx); err != nil {
		return nil, nil, err
	}
	h := k.held
	h.leases++
	return h.id, func(used error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		h.leases--
		h.closeIfDone()
		if errors.Is(used, signer.ErrTokenGone) || errors.Is(used, signer.ErrTokenNotFound) || errors.Is(used, rolesanywhere.ErrBadSignature) {
			k.dirty = true
		}
	}, nil
}

// retain and release count the roles; the last one closes the key.
func (k *identityKeeper) retain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.users++
}

func (k *identityKeeper) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users--; k.users <= 0 && k.held != nil {
		k.held.retire()
		k.held = nil
	}
}

func (h *heldIdentity) retire() {
	h.retired = true
	h.closeIfDone()
}

func (h *heldIdentity) closeIfDone() {
	if h.retired && h.leases == 0 {
		_ = h.owner.Close() // nothing more is to be had of it
	}
}

// follow brings the identity up to date, if it can. Without any, its failure
// is an error.
func (k *identityKeeper) follow(ctx context.Context) error {
	now, err := k.stamps()
	if err == nil && k.held != nil && now == k.stamp && !k.dirty && !k.onToken() {
		k.warned = ""
		return nil
	}
	if err == nil {
		err = k.reread(ctx, now)
	}
	if err == nil || k.held == nil {
		k.warned = ""
		return err
	}
	if k.warned != err.Error() {
		k.warned = err.Error()
		k.log.Warn("key and certificate changed but are no pair to use: the old pair stays in use",
			"key", k.keyRef.String(), "certificateSerial", serial(k.held.id.Certificate()), "error", k.warned)
	}
	return nil
}

// onToken reports whether the certificate lies where no stamp sees it change.
func (k *identityKeeper) onToken() bool {
	return !k.certRef.IsZero() && k.certRef.Scheme != signer.SchemeFile
}

func (k *identityKeeper) reread(ctx context.Context, before stamps) error {
	k.opening.Lock()
	defer k.opening.Unlock()
	sameKey := k.held != nil && !k.dirty && before.key == k.stamp.key && !k.certRef.IsZero() && k.certRef != k.keyRef
	var fresh *heldIdentity
	var err error
	if sameKey || k.held != nil && !k.dirty && k.onToken() {
		fresh, err = k.rejoin(ctx)
	}
	if fresh == nil && (err == nil || errors.Is(err, signer.ErrKeyMismatch) && k.keyRef.Scheme != signer.SchemeFile) {
		fresh, err = k.open(ctx)
	}
	if err != nil {
		return err
	}
	if err := k.accept(fresh.id.Certificate(), before); err != nil {
		if k.held == nil || fresh.owner != k.held.owner {
			_ = fresh.owner.Close() // err is what matters
		}
		return err
	}
	changed := k.held == nil || !fresh.id.Certificate().Equal(k.held.id.Certificate())
	switch {
	case k.held != nil && fresh.owner == k.held.owner:
		k.held.id = fresh.id
	case k.held != nil:
		k.held.retire()
		k.held = fresh
	default:
		k.held = fresh
	}
	k.stamp, k.dirty = before, false
	if cert := fresh.id.Certificate(); changed {
		k.log.Info("identity", "key", k.keyRef.String(), "type", signer.DescribeKey(fresh.id.Public()), "subject", cert.Subject.String(),
			"certificateSerial", serial(cert), "certificateExpires", cert.NotAfter.UTC())
	}
	return nil
}

// accept checks that nothing was written meanwhile, and that a certificate
// that cannot be used does not take the place of one that can.
func (k *identityKeeper) accept(cert *x509.Certificate, before stamps) error {
	after, err := k.stamps()
	if err != nil {
		return err
	}
	if after != before {
		return errChanging
	}
	if k.held == nil || rolesanywhere.CheckCertificate(k.held.id.Certificate(), time.Now()) != nil {
		return nil
	}
	return rolesanywhere.CheckCertificate(cert, time.Now())
}

func (k *identityKeeper) open(ctx context.Context) (*heldIdentity, error) {
	id, err := k.a.openIdentity(ctx, k.f)
	if err != nil {
		return nil, err
	}
	return &heldIdentity{owner: id, id: id}, nil
}

// rejoin reads the certificates again for the key that is open, so that nobody
// is asked for a passphrase or PIN again.
func (k *identityKeeper) rejoin(ctx context.Context) (*heldIdentity, error) {
	certs, err := k.a.readCertificates(ctx, k.certRef, k.f)
	if err != nil {
		return nil, err
	}
	leaf, others := signer.SelectLeaf(k.held.owner.Public(), certs, time.Now())
	if k.f.intermediates != "" {
		more, err := k.a.readCertificates(ctx, signer.ParseReference(k.f.intermediates), k.f)
		if err != nil {
			return nil, err
		}
		others = append(others, more...)
	}
	id, err := signer.New(k.held.owner, leaf, others)
	if err != nil {
		return nil, err
	}
	return &heldIdentity{owner: k.held.owner, id: id}, nil
}

func (k *identityKeeper) stamps() (s stamps, err error) {
	if s.key, err = fileStamp(k.keyRef); err != nil {
		return s, err
	}
	both := sha256.New()
	for _, ref := range []signer.Reference{k.certRef, signer.ParseReference(k.f.intermediates)} {
		sum, err := fileStamp(ref)
		if err != nil {
			return s, err
		}
		both.Write(sum[:])
	}
	both.Sum(s.certificates[:0])
	return s, nil
}

// fileStamp is a digest of a regular file. Everything else, such as a pipe,
// which can be read but once, never seems to change.
func fileStamp(ref signer.Reference) (sum [sha256.Size]byte, err error) {
	if ref.IsZero() || ref.Scheme != signer.SchemeFile {
		return sum, nil
	}
	info, err := os.Stat(ref.Value)
	if err != nil || !info.Mode().IsRegular() {
		return sum, err
	}
	f, err := os.Open(ref.Value)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, 16<<20)); err != nil {
		return sum, fmt.Errorf("read %s: %w", ref, err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

func serial(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SerialNumber) }
