package tpm

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// A Key is a signing key in a TPM. It implements [crypto.Signer] and
// [crypto.MessageSigner] and is safe for concurrent use.
type Key struct {
	d      *Device
	opts   Options
	name   string   // for people
	file   *KeyFile // nil for a persistent key
	handle tpm2.TPMHandle
	public tpm2.TPMTPublic
	pub    crypto.PublicKey
	fixed  scheme
	policy Policy

	closing sync.Once
	closed  error

	// The rest is guarded by the Device's turn.
	cred, parent, owner *credential
	tryEmpty            bool // the value is not known; an empty one costs nothing
	place               resident
	template            int    // of the parent, see parentTemplates
	imported            []byte // an importable key's private part, for its parent
	session             *session
	dirty               bool // session is not as it began
	proves              bool // the last way through the policy took the password
	shut                bool
	early               error // of Preload

	largeSalt atomic.Bool                        // the TPM's PSS salts fill the block
	missing   atomic.Pointer[[]tpm2.TPMIAlgHash] // hashes that the TPM turned out to lack
}

// Public returns an *ecdsa.PublicKey or *rsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.pub }

// PublicArea returns the key's public area in the TPM.
func (k *Key) PublicArea() tpm2.TPMTPublic { return k.public }

// Ask asks for the passwords now that the key's first use is known to need. The
// TPM is not held meanwhile, and no signature's deadline runs: a person may take
// a while to answer.
func (k *Key) Ask(ctx context.Context) error {
	select {
	case k.d.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-k.d.turn }()
	if k.shut {
		return nil
	}
	if k.file != nil {
		c := k.hierarchyCredential()
		if isPersistent(k.file.Parent) {
			c = k.parentCredential()
		}
		if _, err := c.value(ctx); err != nil {
			return err
		}
	}
	if k.tryEmpty {
		return nil
	}
	_, err := k.cred.value(ctx)
	return err
}

// Sign signs a digest: with ECDSA, or RSA as opts say (PKCS#1 v1.5, or PSS with
// *rsa.PSSOptions). The TPM's random numbers are used, not those of the
// argument.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), k.timeout())
	defer cancel()
	return k.SignContext(ctx, digest, opts)
}

func (k *Key) timeout() time.Duration {
	if k.opts.Timeout > 0 {
		return k.opts.Timeout
	}
	return time.Minute
}

// SignMessage hashes a message with opts.HashFunc and signs it.
func (k *Key) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), k.timeout())
	defer cancel()
	return k.SignMessageContext(ctx, message, opts)
}

// SignMessageContext is SignMessage with a context that bounds it.
func (k *Key) SignMessageContext(ctx context.Context, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	h := opts.HashFunc()
	if !h.Available() {
		return nil, fmt.Errorf("%s: hash %v: %w", k.name, h, errors.ErrUnsupported)
	}
	sum := h.New()
	sum.Write(message)
	return k.SignContext(ctx, sum.Sum(nil), opts)
}

// SignContext is Sign with a context that bounds it.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	for {
		sig, err := k.signOnce(ctx, digest, opts)
		if err == nil {
			return sig, nil
		}
		if !errors.Is(err, errPlanAnew) {
			if !strings.HasPrefix(err.Error(), k.name+": ") { // what is said of its password begins so
				err = fmt.Errorf("%s: signing: %w", k.name, err)
			}
			return nil, k.d.explain(err)
		}
	}
}

func (k *Key) signOnce(ctx context.Context, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	j, err := k.plan(digest, opts)
	if err != nil {
		return nil, err
	}
	err = k.d.do(ctx, func(o *op) (err error) {
		sig, err = k.run(o, j)
		return k.learn(j, sig, err)
	})
	if err == nil && k.opts.Brief {
		k.d.letGo()
	}
	return sig, err
}

// WithHandle runs fn with the key loaded: for what else can be done with a key
// in the USER role. fn is run again if the TPM turns out to have been reset, or
// the key to have a password. For TPM2_Certify see [Key.WithAdmin].
func (k *Key) WithHandle(ctx context.Context, fn func(t *Loaded) error) error {
	return k.d.do(ctx, func(o *op) error {
		return k.retry(o, func() error {
			auth, err := k.ready(o)
			if err != nil {
				return err
			}
			return k.lend(o, auth, fn, k.judge)
		})
	})
}

// Close flushes the key from the TPM and forgets its password.
func (k *Key) Close() error {
	k.closing.Do(func() {
		ctx, cancel := cleanupContext()
		defer cancel()
		if !k.closeGone(ctx) {
			k.closed = k.d.do(ctx, k.close)
		}
		if errors.Is(k.closed, errClosed) {
			k.closed = nil
		}
		if k.opts.CloseDevice {
			k.closed = errors.Join(k.closed, k.d.Close())
		}
	})
	return k.closed
}

// closeGone closes a key that is not in the TPM, without a use of that.
func (k *Key) closeGone(ctx context.Context) bool {
	select {
	case k.d.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-k.d.turn }()
	if k.place.handle != 0 || slices.Contains(k.d.policies, k.session) {
		return false
	}
	return k.close(nil) == nil
}

// close flushes what is in the TPM. o may be nil if nothing is.
func (k *Key) close(o *op) error {
	k.shut = true
	var err error
	if k.place.handle != 0 {
		err = o.flush(k.place.handle)
	}
	k.d.drop(&k.place)
	for _, s := range k.d.policies {
		if s == k.session {
			err = errors.Join(err, o.flush(s.handle))
			break
		}
	}
	for _, c := range []*credential{k.cred, k.parent, k.owner} {
		if c != nil {
			c.wipe()
		}
	}
	if lost(err) {
		err = nil
	}
	return err
}
