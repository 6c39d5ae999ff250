package pkcs11

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// Parse reads a PKCS#11 URI. It takes characters that should have been
// percent-encoded as they stand, as long as they cannot be mistaken; "+" is a
// plus sign. It refuses an attribute that is there twice (but for vendors' in
// the query), a value its attribute cannot have, and pin-value beside
// pin-source. Attributes it does not know are kept; those in the path match
// nothing (see [URI.MatchesToken]). Errors wrap signer.ErrMalformed and never
// show a value of the query.
func Parse(s string) (*URI, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkcs11") {
		return nil, fmt.Errorf("%w PKCS#11 URI: it does not begin with \"pkcs11:\"", signer.ErrMalformed)
	}
	path, query, _ := strings.Cut(rest, "?")
	u := &URI{}
	if path != "" {
		for _, part := range strings.Split(path, ";") {
			a, err := parseAttribute(part, false)
			if err != nil {
				return nil, err
			}
			if u.has(u.path, a.name) {
				return nil, malformed("%s is there twice", a.name)
			}
			u.path = append(u.path, a)
		}
	}
	if query != "" {
		for _, part := range strings.Split(query, "&") {
			a, err := parseAttribute(part, true)
			if err != nil {
				return nil, err
			}
			if slices.Contains(queryAttributes, a.name) && u.has(u.query, a.name) {
				return nil, malformed("%s is there twice", a.name)
			}
			u.query = append(u.query, a)
		}
	}
	if u.has(u.query, AttrPINSource) && u.has(u.query, AttrPINValue) {
		return nil, signer.WithHint(malformed("it has both pin-source and pin-value"), "keep pin-source")
	}
	u.order()
	return u, nil
}

func (u *URI) has(in []attribute, name string) bool {
	return slices.ContainsFunc(in, func(a attribute) bool { return a.name == name })
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w PKCS#11 URI: %s", signer.ErrMalformed, fmt.Sprintf(format, args...))
}

func parseAttribute(part string, inQuery bool) (attribute, error) {
	name, raw, ok := strings.Cut(part, "=")
	if name == "" {
		return attribute{}, malformed("an attribute without a name")
	}
	if i := strings.IndexFunc(name, notNameChar); i >= 0 {
		if inQuery {
			// What follows a stray "&" may well be the rest of a PIN.
			return attribute{}, signer.WithHint(malformed("the query has an attribute whose name is none"), `write "&" within a value as %26`)
		}
		return attribute{}, malformed("attribute name %q", name)
	}
	if !ok {
		if inQuery {
			return attribute{}, signer.WithHint(malformed("the query has an attribute without a value"), `write "&" within a value as %26`)
		}
		return attribute{}, malformed("attribute %q has no value", name)
	}
	value, err := decode(name, raw)
	if err != nil {
		return attribute{}, err
	}
	if inQuery {
		if slices.Contains(pathAttributes, name) {
			return attribute{}, signer.WithHint(malformed("%s belongs before the \"?\"", name), `separate attributes of the path with ";"`)
		}
		return attribute{name, value}, nil
	}
	if slices.Contains(queryAttributes, name) {
		return attribute{}, signer.WithHint(malformed("%s belongs after a \"?\"", name), "write pkcs11:…?"+name+"=…")
	}
	return checkValue(attribute{name, value})
}

func notNameChar(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

func decode(name, raw string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			if i+2 >= len(raw) {
				return "", badPercent(name)
			}
			n, err := strconv.ParseUint(raw[i+1:i+3], 16, 8)
			if err != nil {
				return "", badPercent(name)
			}
			c = byte(n)
			i += 2
		case c < 0x20 || c == 0x7f:
			return "", malformed("%s has a control character that is not percent-encoded", name)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func badPercent(name string) error {
	return signer.WithHint(malformed("%s has a \"%%\" without two hexadecimal digits", name), `write "%" itself as %25`)
}

// checkValue checks the attributes of the path that not every text fits.
func checkValue(a attribute) (attribute, error) {
	switch a.name {
	case AttrType:
		switch a.value {
		case TypeCertificate, TypePrivate, TypePublic, TypeSecret, TypeData:
		default:
			return a, malformed("type=%q is none of cert, private, public, secret-key, data", a.value)
		}
	case AttrSlotID:
		n, err := parseDecimal(a.value, 64)
		if err != nil {
			return a, malformed("slot-id=%q is no decimal number", a.value)
		}
		a.value = n
	case AttrLibVersion:
		major, minor, dotted := strings.Cut(a.value, ".")
		if !dotted {
			minor = "0"
		}
		x, err1 := parseDecimal(major, 8)
		y, err2 := parseDecimal(minor, 8)
		if err1 != nil || err2 != nil {
			return a, malformed("library-version=%q is no version", a.value)
		}
		a.value = x + "." + y
	}
	return a, nil
}

// parseDecimal returns the number without leading zeros.
func parseDecimal(s string, bits int) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return "", strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, bits)
	return strconv.FormatUint(n, 10), err
}
