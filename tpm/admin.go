package tpm

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
)

// WithAdmin is [Key.WithHandle] for commands that want the ADMIN role of the
// key, such as TPM2_Certify. That is proven with the key's authorization value,
// whatever policy binds its other uses (TPM 2.0 Library part 1, "Authorization
// roles"): a key bound to PCRs is certified after they have moved too. A key
// with adminWithPolicy is an error that wraps [signer.ErrUnsupportedKey].
func (k *Key) WithAdmin(ctx context.Context, fn func(t *Loaded) error) error {
	if k.public.ObjectAttributes.AdminWithPolicy {
		return signer.WithHint(fmt.Errorf("%s: %w: it takes commands such as TPM2_Certify by a policy for them alone (adminWithPolicy is set)", k.name, signer.ErrUnsupportedKey),
			"make a key without adminWithPolicy, such as those of holdfast key create")
	}
	return k.d.do(ctx, func(o *op) error {
		a := k.admin()
		if a.credential != k.cred {
			defer a.wipe()
		}
		return k.retry(o, func() error {
			auth, err := a.ready(o)
			if err != nil {
				return err
			}
			return k.lend(o, auth, fn, a.judge)
		})
	})
}

// lend runs fn with the loaded key. What is said of its authorization is
// judged by the TPM's answers to commands on the key, for fn's error may come
// of other commands.
func (k *Key) lend(o *op, auth tpm2.Session, fn func(*Loaded) error, judge func(*op, error) error) error {
	w := &witness{op: o, handle: k.current()}
	err := fn(&Loaded{TPM: w, Auth: tpm2.AuthHandle{Handle: w.handle, Name: k.place.name, Auth: auth}})
	if !w.answered {
		return err
	}
	if verdict := judge(o, w.err()); verdict != w.err() { //nolint:errorlint // the very same: there is no more to say
		return verdict
	}
	return err
}

// A witness remembers how the TPM answered the last command that was authorized
// for the object handle.
type witness struct {
	*op
	handle   tpm2.TPMHandle
	answered bool
	rc       tpm2.TPMRC
}

func (w *witness) Send(command []byte) ([]byte, error) {
	rsp, err := w.op.Send(command)
	if err == nil && len(command) >= headerSize+4 && tpm2.TPMST(binary.BigEndian.Uint16(command)) == tpm2.TPMSTSessions &&
		tpm2.TPMHandle(binary.BigEndian.Uint32(command[headerSize:])) == w.handle {
		w.answered, w.rc = true, responseCode(rsp)
	}
	return rsp, err
}

func (w *witness) err() error {
	if w.rc == tpm2.TPMRCSuccess {
		return nil
	}
	return w.rc
}

// An admin proves the ADMIN role of a key.
type admin struct {
	*credential
	k        *Key
	tryEmpty *bool
}

// admin returns the key's own credential, unless its policy has no use for
// one: then nobody has asked for the value yet.
func (k *Key) admin() admin {
	if k.policy == nil || k.policy.NeedsAuth() {
		return admin{k.cred, k, &k.tryEmpty}
	}
	c := &credential{what: k.name, name: k.place.name.Buffer, da: k.cred.da, ask: k.opts.Auth, mend: k.cred.mend}
	tryEmpty := false
	switch empty := k.file != nil && k.file.EmptyAuth != nil && *k.file.EmptyAuth; {
	case empty:
		c.ask, c.asked, c.vouch = nil, true, true
	case !c.da:
		tryEmpty = true
	}
	return admin{c, k, &tryEmpty}
}

// ready is Key.ready for the ADMIN role.
func (a admin) ready(o *op) (tpm2.Session, error) {
	k := a.k
	if k.shut {
		return nil, errKeyClosed
	}
	if !*a.tryEmpty {
		if _, err := a.value(o.ctx); err != nil {
			return nil, err
		}
	}
	if k.file != nil {
		if err := o.bring(&k.place, func() (tpm2.TPMHandle, error) { return k.load(o) }); err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
	}
	if *a.tryEmpty {
		return emptyAuth(), nil
	}
	return o.authorize(a.credential, nil, false, false)
}

// judge is Key.judge for the ADMIN role.
func (a admin) judge(o *op, err error) error {
	if *a.tryEmpty && authRefused(err) {
		*a.tryEmpty = false
		if a.ask == nil {
			return a.required()
		}
		return errAskNow
	}
	return o.judge(a.credential, err)
}

// HierarchySession returns a session that proves a hierarchy's authorization
// value for any number of commands on t, which is what [Device.Do] or a
// [Loaded] has. A nil auth stands for an empty value, which is usual.
func HierarchySession(t transport.TPM, hierarchy tpm2.TPMHandle, auth AuthFunc) (tpm2.Session, error) {
	var o *op
	switch t := t.(type) {
	case *op:
		o = t
	case *witness:
		o = t.op
	default:
		return nil, fmt.Errorf("%s: %T is no use of a Device", hierarchyName(hierarchy), t)
	}
	c := ofHierarchy(hierarchy, auth, "")
	return o.authorize(c, nil, false, false)
}
