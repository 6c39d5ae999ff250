//go:build cgo

package cryptoki

import (
	"encoding/binary"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// maxObjects bounds a search: a module that never ends one is broken.
const maxObjects = 1 << 16

// An object is what every kind of object has that this package looks for.
type object struct {
	handle p11.ObjectHandle
	label  string
	id     []byte
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

// objects returns the objects of a class with label and id, which match the
// further attributes.
func (l *library) objects(s *session, class uint, more ...*p11.Attribute) ([]object, error) {
	handles, err := l.find(s, append([]*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class)}, more...)...)
	if err != nil {
		return nil, err
	}
	all := make([]object, 0, len(handles))
	for _, h := range handles {
		o := object{handle: h}
		label, _, err := l.attribute(s, h, p11.CKA_LABEL)
		if err == nil {
			o.label = string(label)
			o.id, _, err = l.attribute(s, h, p11.CKA_ID)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// attribute asks for one attribute alone, so that one that the object does not
// have or show hides no other. Then ok is false; an error means that the
// session is of no more use.
func (l *library) attribute(s *session, h p11.ObjectHandle, kind uint) (value []byte, ok bool, err error) {
	got, err := l.ctx.GetAttributeValue(s.handle, h, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	if err != nil {
		err = failed("C_GetAttributeValue", err)
		if c := classify(err); c == failPlain || c == failDevice {
			return nil, false, nil
		}
		return nil, false, err
	}
	if len(got) != 1 || got[0] == nil || got[0].Value == nil {
		return nil, false, nil
	}
	return got[0].Value, true, nil
}

// flag returns nil if the object does not say.
func (l *library) flag(s *session, h p11.ObjectHandle, kind uint) (*bool, error) {
	v, ok, err := l.attribute(s, h, kind)
	if err != nil || !ok || len(v) == 0 {
		return nil, err
	}
	is := v[0] != 0
	return &is, nil
}

// number returns ok false if the object does not say.
func (l *library) number(s *session, h p11.ObjectHandle, kind uint) (n uint, ok bool, err error) {
	v, ok, err := l.attribute(s, h, kind)
	if err != nil || !ok {
		return 0, false, err
	}
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
