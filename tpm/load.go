package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
)

// Loaded is a key that is in the TPM for the moment.
type Loaded struct {
	// TPM is the TPM, for the length of the call.
	TPM transport.TPM

	// Auth is the key with what authorizes its use, good for one command.
	Auth tpm2.AuthHandle
}

var errKeyClosed = errors.New("the key has been closed")

// current returns the handle the key has now.
func (k *Key) current() tpm2.TPMHandle {
	if k.file == nil {
		return k.handle
	}
	return k.place.handle
}

// ready makes sure that the key is loaded, and returns what authorizes it.
func (k *Key) ready(o *op) (tpm2.Session, error) {
	if k.shut {
		return nil, errKeyClosed
	}
	if err := k.early; err != nil {
		k.early = nil
		return nil, err
	}
	if !k.tryEmpty {
		// Before anything is loaded: a person may take a while to answer.
		if _, err := k.cred.value(o.ctx); err != nil {
			return nil, err
		}
	}
	if k.file != nil {
		if err := o.bring(&k.place, func() (tpm2.TPMHandle, error) { return k.load(o) }); err != nil {
			return nil, err
		}
	}
	if k.policy == nil {
		return k.authValue(o)
	}
	s, outcome, err := o.policySession(k)
	if err != nil {
		return nil, err
	}
	if k.proves = outcome.AuthValue; !k.proves {
		return s.with(nil, false, false), nil
	}
	secret, err := k.cred.value(o.ctx)
	if err != nil {
		return nil, err
	}
	return s.with(secret, false, false), o.guard(k.cred)
}

func (k *Key) authValue(o *op) (tpm2.Session, error) {
	if k.tryEmpty {
		return emptyAuth(), nil
	}
	return o.authorize(k.cred, nil, false, false) // a digest is no secret
}

// judge is op.judge for the key. If an empty value was only tried, the right
// one is asked for next time, which retry sees to.
func (k *Key) judge(o *op, err error) error {
	if err == nil {
		k.dirty = false
	}
	switch {
	case k.tryEmpty && authRefused(err):
		k.tryEmpty = false
		if k.cred.ask == nil {
			return k.cred.required()
		}
		return errAskNow
	case k.policy != nil && !k.proves:
		return explainPolicy(err)
	}
	err = o.judge(k.cred, err)
	if errors.Is(err, errStale) && k.session != nil {
		k.session.bad = true
	}
	return explainPolicy(err)
}

// errAskNow: the key has a password after all.
var errAskNow = errors.New("a password is wanted")

// retry runs fn. It runs it once more when the key has to be loaded anew,
// because the TPM was reset or the connection to it broke, when a password
// turned out to be wanted, and some times when a PCR was extended under it.
func (k *Key) retry(o *op, fn func() error) error {
	reloaded, asked, stale, moved := false, false, false, 0
	for {
		err := fn()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errAskNow) && !asked:
			asked = true
		case errors.Is(err, errStale) && !stale:
			stale = true
		case errors.Is(err, tpm2.TPMRCPCRChanged) && moved < pcrTries:
			moved++
		case lost(err) && !reloaded && o.ctx.Err() == nil:
			reloaded = true
			if err := k.reload(o); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// reload drops what may be in the TPM of before, so that the next use loads it
// anew.
func (k *Key) reload(o *op) error {
	d := o.d
	for _, r := range d.residents {
		r.saved = nil
	}
	if err := d.flushAll(func(loaded) bool { return true }); err != nil {
		if !lost(err) || d.lock != nil && errors.Is(err, errBroken) {
			return err
		}
		d.forget()
	}
	if k.file != nil {
		return nil
	}
	ob, err := o.persistent(k.handle)
	if err != nil {
		return err
	}
	if string(ob.name.Buffer) != string(k.place.name.Buffer) {
		return fmt.Errorf("handle %#x: %w: another key has taken its place", uint32(k.handle), signer.ErrKeyNotFound)
	}
	return nil
}

// load loads a key file's key below its parent, which is flushed at once:
// resource managers swap it in and out around every command.
func (k *Key) load(o *op) (h tpm2.TPMHandle, err error) {
	if isPersistent(k.file.Parent) {
		ob, err := o.persistent(k.file.Parent)
		if err != nil {
			return 0, fmt.Errorf("its parent: %w", err)
		}
		if !ob.isStorage() {
			return 0, fmt.Errorf("its parent %#x: %w", uint32(k.file.Parent), unsupported("not a storage key"))
		}
		h, err = k.loadBelow(o, ob)
		return h, k.explainLoad(err)
	}
	templates := parentTemplates(k.file.RSAParent)
	for n := range templates {
		i := (k.template + n) % len(templates)
		var ob *object
		if i == 0 {
			ob = o.takeParent(k.file.Parent, k.file.RSAParent)
		}
		if ob == nil {
			if ob, err = k.primary(o, templates[i]); err != nil {
				return 0, err
			}
		}
		h, err = k.loadBelow(o, ob)
		if ferr := o.flush(ob.handle); err == nil {
			err = ferr
		}
		if codeOf(err) != tpm2.TPMRCIntegrity {
			k.template = i
			break
		}
	}
	return h, k.explainLoad(err)
}

// primary makes the parent.
func (k *Key) primary(o *op, template tpm2.TPMTPublic) (*object, error) {
	c := k.hierarchyCredential()
	auth, err := o.authorize(c, nil, true, false)
	if err != nil {
		return nil, err
	}
	ob, err := o.createPrimary(k.file.Parent, auth, template)
	if err = o.judge(c, err); err != nil {
		return nil, o.d.wrapf(err, "making its parent in %s", hierarchyName(k.file.Parent))
	}
	return ob, nil
}

func (k *Key) hierarchyCredential() *credential {
	if k.owner == nil {
		h := tpm2.TPMRHOwner
		if k.file != nil && !isPersistent(k.file.Parent) {
			h = k.file.Parent
		}
		k.owner = ofHierarchy(h, k.opts.OwnerAuth, k.d.hints.Owner)
	}
	return k.owner
}

func hierarchyName(h tpm2.TPMHandle) string {
	switch h {
	case tpm2.TPMRHOwner:
		return "the owner hierarchy"
	case tpm2.TPMRHEndorsement:
		return "the endorsement hierarchy"
	case tpm2.TPMRHPlatform:
		return "the platform hierarchy"
	case tpm2.TPMRHNull:
		return "the null hierarchy"
	}
	return fmt.Sprintf("hierarchy %#x", uint32(h))
}

func (k *Key) loadBelow(o *op, parent *object) (tpm2.TPMHandle, error) {
	c := k.ofParent(parent)
	if k.willNeedSession() && o.d.session == nil {
		if _, err := o.hmacSession(parent); err != nil { // while the parent is at hand to salt it
			return 0, err
		}
	}
	private := k.file.Private
	if k.file.Importable {
		if k.imported == nil {
			if err := k.importBelow(o, parent, c); err != nil {
				return 0, err
			}
		}
		private = k.imported
	}
	auth, err := o.authorize(c, parent, true, false)
	if err != nil {
		return 0, err
	}
	rsp, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: auth},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: private},
		InPublic:     tpm2.New2B(k.public),
	}.Execute(o)
	if err = o.judge(c, err); err != nil {
		return 0, err
	}
	return rsp.ObjectHandle, nil
}

// importBelow gives an importable key to its parent.
func (k *Key) importBelow(o *op, parent *object, c *credential) error {
	auth, err := o.authorize(c, parent, true, false)
	if err != nil {
		return err
	}
	rsp, err := tpm2.Import{
		ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: auth},
		ObjectPublic: tpm2.New2B(k.public),
		Duplicate:    tpm2.TPM2BPrivate{Buffer: k.file.Private},
		InSymSeed:    tpm2.TPM2BEncryptedSecret{Buffer: k.file.Secret},
		Symmetric:    tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}.Execute(o)
	if err = o.judge(c, err); err != nil {
		return err
	}
	k.imported = rsp.OutPrivate.Buffer
	return nil
}

func (k *Key) parentCredential() *credential {
	if k.parent == nil {
		k.parent = &credential{what: "the parent of " + k.name, ask: k.opts.ParentAuth, mend: k.d.hints.Parent}
		if k.file != nil && !isPersistent(k.file.Parent) {
			k.parent.ask = nil // one that was just made has none
		}
	}
	return k.parent
}

// ofParent returns the parent's credential, now that it is at hand.
func (k *Key) ofParent(parent *object) *credential {
	c := k.parentCredential()
	c.name = parent.name.Buffer
	c.da = isPersistent(parent.handle) && !parent.public.ObjectAttributes.NoDA
	return c
}

// willNeedSession reports whether a signature takes the HMAC session.
func (k *Key) willNeedSession() bool {
	return k.policy == nil && !k.tryEmpty && len(k.cred.secret) > 0
}

func (k *Key) explainLoad(err error) error {
	switch codeOf(err) {
	case tpm2.TPMRCIntegrity, tpm2.TPMRCBinding:
		return signer.WithHint(fmt.Errorf("loading it: %w", err),
			"the key belongs to another TPM or parent, or the TPM was cleared since it was made")
	case tpm2.TPMRCCurve, tpm2.TPMRCKeySize:
		return signer.WithHint(fmt.Errorf("loading it: %w: this TPM cannot hold such a key: %w", signer.ErrUnsupportedKey, err), "make an EC P-256 or RSA-2048 key")
	}
	return k.d.wrapf(err, "loading it")
}
