//go:build cgo

package cryptoki

import (
	"encoding/binary"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// maxObjects bounds a search: a module that never ends one is broken.
const maxObjects = 1 << 16

// An object is one of a token, as far as it has been read.
type object struct {
	handle p11.ObjectHandle
	label  string
	id     []byte
	known  map[uint][]byte // attributes that were asked for; nil: it does not have or show it
}

func newObject(h p11.ObjectHandle) object { return object{handle: h, known: map[uint][]byte{}} }

// kinds are the attributes that objects of a class are asked for at once:
// those that nearly all modules have.
func kinds(class uint) []uint {
	switch class {
	case p11.CKO_CERTIFICATE:
		return []uint{p11.CKA_LABEL, p11.CKA_ID, p11.CKA_CERTIFICATE_TYPE, p11.CKA_VALUE}
	case p11.CKO_PRIVATE_KEY:
		return []uint{p11.CKA_LABEL, p11.CKA_ID, p11.CKA_KEY_TYPE, p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_EXTRACTABLE, p11.CKA_SIGN}
	}
	return []uint{p11.CKA_LABEL, p11.CKA_ID, p11.CKA_KEY_TYPE}
}

func (o object) String() string { return fmt.Sprintf("%q (id %x)", o.label, o.id) }

// find returns the handles of the objects that match all attributes.
func (l *library) find(s *session, template ...*p11.Attribute) ([]p11.ObjectHandle, error) {
	if err := l.ctx.FindObjectsInit(s.handle, template); err != nil {
		return nil, failed("C_FindObjectsInit", err)
	}
	var all []p11.ObjectHandle
	for {
		some, _, err := l.ctx.FindObjects(s.handle, 64)
		if err != nil {
			return nil, failed("C_FindObjects", err) // the session is closed, and the search with it
		}
		all = append(all, some...)
		if len(some) == 0 || len(all) >= maxObjects {
			break
		}
	}
	return all, failed("C_FindObjectsFinal", l.ctx.FindObjectsFinal(s.handle))
}

// any reports whether there is an object of a class.
func (l *library) any(s *session, class uint) (bool, error) {
	if err := l.ctx.FindObjectsInit(s.handle, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class)}); err != nil {
		return false, failed("C_FindObjectsInit", err)
	}
	some, _, err := l.ctx.FindObjects(s.handle, 1)
	if err != nil {
		return false, failed("C_FindObjects", err)
	}
	return len(some) > 0, failed("C_FindObjectsFinal", l.ctx.FindObjectsFinal(s.handle))
}

// objects returns the objects of a class with label and id, which match the
// further attributes.
func (l *library) objects(s *session, class uint, more ...*p11.Attribute) ([]object, error) {
	handles, err := l.find(s, append([]*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class)}, more...)...)
	if err != nil {
		return nil, err
	}
	all := make([]object, 0, len(handles))
	for _, h := range handles {
		o := newObject(h)
		if err := l.read(s, o, kinds(class)...); err != nil {
			return nil, err
		}
		o.label, o.id = string(o.known[p11.CKA_LABEL]), o.known[p11.CKA_ID]
		all = append(all, o)
	}
	return all, nil
}

// read makes attributes known that are not yet: in one call, and those that it
// did not bring alone. An error means that the session is of no more use.
func (l *library) read(s *session, o object, kinds ...uint) error {
	var ask []uint
	for _, kind := range kinds {
		if _, ok := o.known[kind]; !ok {
			ask = append(ask, kind)
		}
	}
	if len(ask) > 1 && len(ask) <= maxAttributes {
		values, err := l.fn.attributes(s.handle, o.handle, ask)
		if err != nil && endsSession(err) {
			return err
		}
		for i, v := range values {
			if v != nil {
				o.known[ask[i]] = v
			}
		}
	}
	for _, kind := range ask {
		if _, ok := o.known[kind]; ok {
			continue
		}
		v, _, err := l.attribute(s, o.handle, kind)
		if err != nil {
			return err
		}
		o.known[kind] = v
	}
	return nil
}

func endsSession(err error) bool {
	c := classify(err)
	return c != failPlain && c != failDevice
}

// attribute asks for one attribute alone, so that one that the object does not
// have or show hides no other. Then ok is false; an error means that the
// session is of no more use.
func (l *library) attribute(s *session, h p11.ObjectHandle, kind uint) (value []byte, ok bool, err error) {
	value, ok, err = l.fn.attribute(s.handle, h, kind)
	if err != nil && !endsSession(err) {
		return nil, false, nil
	}
	return value, ok, err
}

// flag returns nil if the object does not say.
func (l *library) flag(s *session, o object, kind uint) (*bool, error) {
	err := l.read(s, o, kind)
	v := o.known[kind]
	if err != nil || len(v) == 0 {
		return nil, err
	}
	is := v[0] != 0
	return &is, nil
}

// number returns ok false if the object does not say.
func (l *library) number(s *session, o object, kind uint) (n uint, ok bool, err error) {
	if err := l.read(s, o, kind); err != nil {
		return 0, false, err
	}
	v := o.known[kind]
	switch len(v) { // a CK_ULONG, in the machine's own order
	case 4:
		return uint(binary.NativeEndian.Uint32(v)), true, nil
	case 8:
		return uint(binary.NativeEndian.Uint64(v)), true, nil
	}
	return 0, false, nil
}

func idIs(id []byte) *p11.Attribute       { return p11.NewAttribute(p11.CKA_ID, id) }
func labelIs(label string) *p11.Attribute { return p11.NewAttribute(p11.CKA_LABEL, label) }
