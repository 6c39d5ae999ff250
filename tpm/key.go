package tpm

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
