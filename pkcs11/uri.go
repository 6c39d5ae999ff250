package pkcs11

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// Attributes of RFC 7512, section 2.3.
const (
	AttrToken           = "token"
	AttrManufacturer    = "manufacturer"
	AttrSerial          = "serial"
	AttrModel           = "model"
	AttrLibManufacturer = "library-manufacturer"
	AttrLibVersion      = "library-version"
	AttrLibDescription  = "library-description"
	AttrObject          = "object"
	AttrType            = "type"
	AttrID              = "id"
	AttrSlotManuf       = "slot-manufacturer"
	AttrSlotDescription = "slot-description"
	AttrSlotID          = "slot-id"

	AttrPINSource  = "pin-source"
	AttrPINValue   = "pin-value"
	AttrModuleName = "module-name"
	AttrModulePath = "module-path"
)

// Values of AttrType.
const (
	TypeCertificate = "cert"
	TypePrivate     = "private"
	TypePublic      = "public"
	TypeSecret      = "secret-key"
	TypeData        = "data"
)

// pathAttributes and queryAttributes are in the order they are printed in.
var (
	pathAttributes = []string{
		AttrLibManufacturer, AttrLibDescription, AttrLibVersion,
		AttrSlotManuf, AttrSlotDescription, AttrSlotID,
		AttrModel, AttrManufacturer, AttrSerial, AttrToken,
		AttrID, AttrObject, AttrType,
	}
	queryAttributes = []string{AttrModuleName, AttrModulePath, AttrPINSource, AttrPINValue}
)

// A URI is a PKCS#11 URI (RFC 7512). The zero value matches every object of
// every token. A URI does not change: [URI.With] and [URI.Without] return
// others.
type URI struct {
	path, query []attribute // in canonical order
}

type attribute struct{ name, value string } // value is decoded

// Get returns the value of an attribute of the path or the query, decoded, and
// whether it is there. Of a vendor's query attribute that is there more than
// once it returns the first.
func (u *URI) Get(name string) (value string, ok bool) {
	for _, a := range slices.Concat(u.path, u.query) {
		if a.name == name {
			return a.value, true
		}
	}
	return "", false
}

// Value is Get for those who need not tell absent from empty.
func (u *URI) Value(name string) string {
	v, _ := u.Get(name)
	return v
}

// ID returns CKA_ID.
func (u *URI) ID() (id []byte, ok bool) {
	v, ok := u.Get(AttrID)
	if !ok {
		return nil, false
	}
	return []byte(v), true
}

// SlotID returns the slot's number, which may be 0.
func (u *URI) SlotID() (id uint64, ok bool) {
	v, ok := u.Get(AttrSlotID)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(v, 10, 64)
	return id, err == nil
}

// With returns u with an attribute set. The value is what the attribute means,
// not its percent-encoding. A name that is no attribute of RFC 7512's query
// goes into the path. A value the attribute cannot have makes a URI that
// [Parse] refuses and that matches nothing.
func (u *URI) With(name, value string) *URI {
	n := u.Without(name)
	if slices.Contains(queryAttributes, name) {
		n.query = append(n.query, attribute{name, value})
	} else {
		n.path = append(n.path, attribute{name, value})
	}
	n.order()
	return n
}

// Without returns u without the attributes named.
func (u *URI) Without(names ...string) *URI {
	drop := func(a attribute) bool { return slices.Contains(names, a.name) }
	return &URI{
		slices.DeleteFunc(slices.Clone(u.path), drop),
		slices.DeleteFunc(slices.Clone(u.query), drop),
	}
}

// WithoutQuery returns u's path: what it names, not how to get there.
func (u *URI) WithoutQuery() *URI { return &URI{path: u.path} }

// Equal reports whether u and v have the same attributes with the same values.
func (u *URI) Equal(v *URI) bool {
	return slices.Equal(u.path, v.path) && slices.Equal(u.query, v.query)
}

// order sorts known attributes as they are printed, then vendors' by name;
// several of one name stay as they were.
func (u *URI) order() {
	by := func(known []string) func(a, b attribute) int {
		rank := func(a attribute) int {
			if i := slices.Index(known, a.name); i >= 0 {
				return i
			}
			return len(known)
		}
		return func(a, b attribute) int {
			if d := rank(a) - rank(b); d != 0 {
				return d
			}
			return strings.Compare(a.name, b.name)
		}
	}
	slices.SortStableFunc(u.path, by(pathAttributes))
	slices.SortStableFunc(u.query, by(queryAttributes))
}

// Exact returns the URI as [Parse] reads it, a PIN included: it is for programs,
// never for a message or a log.
func (u *URI) Exact() string { return u.print(false) }

// String returns the URI for people: a "pin-value" is redacted.
func (u *URI) String() string { return u.print(true) }

// Format prints what [URI.String] returns, whatever the verb.
func (u *URI) Format(f fmt.State, _ rune) {
	if u == nil {
		_, _ = f.Write([]byte("<nil>"))
		return
	}
	_, _ = f.Write([]byte(u.String()))
}

// LogValue redacts as [URI.String] does.
func (u *URI) LogValue() slog.Value { return slog.StringValue(u.String()) }

func (u *URI) print(redact bool) string {
	var b strings.Builder
	b.WriteString("pkcs11:")
	for i, a := range u.path {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(a.name + "=")
		plain := pathPlain
		if a.name == AttrID {
			plain = "" // raw bytes: all encoded
		}
		encode(&b, a.value, plain)
	}
	for i, a := range u.query {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(a.name + "=")
		if redact && strings.EqualFold(a.name, AttrPINValue) {
			b.WriteString("[redacted]")
			continue
		}
		encode(&b, a.value, queryPlain)
	}
	return b.String()
}

// What RFC 7512 lets stand unencoded in a value of the path and of the query.
const (
	unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	pathPlain  = unreserved + ":[]@!$'()*+,=&"
	queryPlain = unreserved + ":[]@!$'()*+,=/?|"
)

func encode(b *strings.Builder, value, plain string) {
	for i := range len(value) {
		if c := value[i]; strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}
