package pkcs11

import (
	"bytes"
	"strconv"
	"strings"
)

// Unknown returns the attributes of the path that are not RFC 7512's. A URI
// that has any matches nothing (section 2.6).
func (u *URI) Unknown() []string {
	var names []string
	for _, a := range u.path {
		known := false
		for _, name := range pathAttributes {
			known = known || name == a.name
		}
		if !known {
			names = append(names, a.name)
		}
	}
	return names
}

// MatchesToken reports whether the URI's attributes of library, slot and token
// fit. Attributes of objects do not count here.
func (u *URI) MatchesToken(l Library, t Token) bool {
	for _, a := range u.path {
		var have string
		switch a.name {
		case AttrLibManufacturer:
			have = l.Manufacturer
		case AttrLibDescription:
			have = l.Description
		case AttrLibVersion:
			have = l.Version
		case AttrSlotManuf:
			have = t.SlotManufacturer
		case AttrSlotDescription:
			have = t.SlotDescription
		case AttrSlotID:
			have = strconv.FormatUint(t.SlotID, 10)
		case AttrModel:
			have = t.Model
		case AttrManufacturer:
			have = t.Manufacturer
		case AttrSerial:
			have = t.Serial
		case AttrToken:
			have = t.Label
		case AttrID, AttrObject, AttrType:
			continue
		default:
			return false
		}
		// The token pads with blanks, so those at the end never tell.
		if strings.TrimRight(a.value, " ") != have {
			return false
		}
	}
	return true
}

// MatchesObject reports whether the URI's attributes of objects fit an object
// of the given type (TypeCertificate, …), label and id.
func (u *URI) MatchesObject(kind, label string, id []byte) bool {
	if v, ok := u.Get(AttrType); ok && v != kind {
		return false
	}
	if v, ok := u.Get(AttrObject); ok && v != label {
		return false
	}
	if v, ok := u.ID(); ok && !bytes.Equal(v, id) {
		return false
	}
	return len(u.Unknown()) == 0
}
