package enroll

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParseSubject reads a distinguished name, written either as in RFC 4514,
// "CN=device-1,OU=edge,O=Acme" (most specific first), or as OpenSSL's -subj
// takes it, "/O=Acme/OU=edge/CN=device-1" (most specific last). A backslash
// escapes: `\,` and, for RFC 4514, `\2C`. Attribute types are names such as CN,
// OU, O, C, L, ST, UID, DC, serialNumber, emailAddress, whatever their case, or
// dotted object identifiers.
//
// The order is kept. Where the fields of a pkix.Name cannot express it,
// ExtraNames holds every attribute too and, as in crypto/x509, goes before the
// fields.
func ParseSubject(s string) (pkix.Name, error) {
	name, err := parseSubject(s)
	if err != nil {
		return pkix.Name{}, fmt.Errorf("subject %q: %w", s, err)
	}
	return name, nil
}

func parseSubject(s string) (pkix.Name, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return pkix.Name{}, errors.New("it is empty: write, for example, CN=device-1,O=Acme")
	}
	if !utf8.ValidString(s) {
		return pkix.Name{}, errors.New("it is not UTF-8")
	}
	slashed := s[0] == '/'
	separator := byte(',')
	if slashed {
		s, separator = s[1:], '/'
	}
	parts, err := splitUnescaped(s, separator)
	if err != nil {
		return pkix.Name{}, err
	}
	var rdns pkix.RDNSequence
	for _, part := range parts {
		a, err := parseAttribute(part, slashed)
		if err != nil {
			return pkix.Name{}, err
		}
		rdn := pkix.RelativeDistinguishedNameSET{a}
		if slashed {
			rdns = append(rdns, rdn)
		} else {
			rdns = append(pkix.RDNSequence{rdn}, rdns...)
		}
	}
	return fromSequence(rdns), nil
}

// fromSequence fills a pkix.Name such that ToRDNSequence returns rdns.
func fromSequence(rdns pkix.RDNSequence) pkix.Name {
	var name pkix.Name
	name.FillFromRDNSequence(&rdns)
	name.Names = nil
	if reflect.DeepEqual(name.ToRDNSequence(), rdns) {
		return name
	}
	for _, rdn := range rdns {
		name.ExtraNames = append(name.ExtraNames, rdn...)
	}
	return name
}

// splitUnescaped splits at separators that no backslash precedes. The parts
// keep their escapes.
func splitUnescaped(s string, separator byte) ([]string, error) {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
			if i == len(s) {
				return nil, errors.New("it ends in a backslash that escapes nothing")
			}
		case '+':
			return nil, errors.New(`attributes joined by "+" are not supported: write them one after the other, or escape the sign: \+`)
		case separator:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:]), nil
}

func parseAttribute(s string, slashed bool) (pkix.AttributeTypeAndValue, error) {
	typ, value, ok := strings.Cut(s, "=")
	typ = strings.TrimSpace(typ)
	if !ok || typ == "" {
		return pkix.AttributeTypeAndValue{}, fmt.Errorf("%q is not TYPE=VALUE", strings.TrimSpace(s))
	}
	oid, err := attributeType(typ)
	if err != nil {
		return pkix.AttributeTypeAndValue{}, err
	}
	if !slashed {
		value = trimUnescaped(value)
		if strings.HasPrefix(value, "#") {
			return hexAttribute(oid, typ, value[1:])
		}
	}
	text, err := unescape(value, slashed)
	if err != nil {
		return pkix.AttributeTypeAndValue{}, fmt.Errorf("%s: %w", typ, err)
	}
	if text == "" {
		return pkix.AttributeTypeAndValue{}, fmt.Errorf("%s has no value", typ)
	}
	if isIA5(oid) {
		for _, r := range text {
			if r >= utf8.RuneSelf {
				return pkix.AttributeTypeAndValue{}, fmt.Errorf("%s takes ASCII only, not %q", typ, r)
			}
		}
		return pkix.AttributeTypeAndValue{Type: oid, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(text)}}, nil
	}
	return pkix.AttributeTypeAndValue{Type: oid, Value: text}, nil
}

// hexAttribute reads the "#" form of RFC 4514, section 2.4: the value's BER.
func hexAttribute(oid asn1.ObjectIdentifier, typ, digits string) (pkix.AttributeTypeAndValue, error) {
	der, err := hex.DecodeString(digits)
	var value any
	if err == nil {
		var rest []byte
		if rest, err = asn1.Unmarshal(der, &value); err == nil && len(rest) > 0 {
			err = errors.New("trailing bytes")
		}
	}
	text, isString := value.(string)
	if err != nil || !isString || text == "" {
		return pkix.AttributeTypeAndValue{}, fmt.Errorf("%s: what follows # is not the hex encoding of a string (write \\# for the sign itself)", typ)
	}
	if isIA5(oid) {
		return pkix.AttributeTypeAndValue{Type: oid, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(text)}}, nil
	}
	return pkix.AttributeTypeAndValue{Type: oid, Value: text}, nil
}

// trimUnescaped cuts spaces at both ends, except a last one that is escaped.
func trimUnescaped(s string) string {
	s = strings.TrimLeft(s, " ")
	t := strings.TrimRight(s, " ")
	if t == s {
		return s
	}
	backslashes := len(t) - len(strings.TrimRight(t, `\`))
	if backslashes%2 == 1 {
		return t + " "
	}
	return t
}

// unescape resolves backslashes: hex pairs, which stand for bytes of UTF-8,
// and any special character. OpenSSL knows no hex pairs.
func unescape(s string, slashed bool) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\\' {
			if !slashed && strings.IndexByte(`";<>`, c) >= 0 {
				return "", fmt.Errorf("the character %q needs a backslash before it", c)
			}
			b.WriteByte(c)
			continue
		}
		i++
		if !slashed && i+1 < len(s) {
			if v, err := strconv.ParseUint(s[i:i+2], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i++
				continue
			}
		}
		if !slashed && strings.IndexByte(`\"+,;<>=# `, s[i]) < 0 {
			return "", fmt.Errorf(`\%c is no escape: after a backslash comes a special character or two hex digits`, s[i])
		}
		b.WriteByte(s[i])
	}
	if !utf8.ValidString(b.String()) {
		return "", errors.New("the escaped bytes are not UTF-8")
	}
	return b.String(), nil
}

func attributeType(s string) (asn1.ObjectIdentifier, error) {
	dotted := s
	if len(s) > 4 && strings.EqualFold(s[:4], "OID.") {
		dotted = s[4:]
	}
	if dotted[0] >= '0' && dotted[0] <= '9' {
		oid, err := parseOID(dotted)
		if err != nil {
			return nil, fmt.Errorf("%q is no object identifier", s)
		}
		return oid, nil
	}
	for _, t := range attributeTypes {
		for _, n := range t.names {
			if strings.EqualFold(n, s) {
				return t.oid, nil
			}
		}
	}
	return nil, fmt.Errorf("unknown attribute type %q: use CN, OU, O, C, L, ST, UID, DC, serialNumber, emailAddress or a dotted object identifier", s)
}

func parseOID(s string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, err
		}
		oid = append(oid, int(n))
	}
	_, err := asn1.Marshal(oid)
	return oid, err
}

// attributeTypes holds names, object identifiers and, of RFC 5280's
// appendix A, the upper bounds in characters (0: none).
var attributeTypes = []struct {
	names []string
	oid   asn1.ObjectIdentifier
	max   int
}{
	{[]string{"CN", "commonName"}, asn1.ObjectIdentifier{2, 5, 4, 3}, 64},
	{[]string{"SN", "surname"}, asn1.ObjectIdentifier{2, 5, 4, 4}, 64},
	{[]string{"serialNumber"}, asn1.ObjectIdentifier{2, 5, 4, 5}, 64},
	{[]string{"C", "countryName"}, oidCountry, 2},
	{[]string{"L", "localityName"}, asn1.ObjectIdentifier{2, 5, 4, 7}, 128},
	{[]string{"ST", "S", "stateOrProvinceName"}, asn1.ObjectIdentifier{2, 5, 4, 8}, 128},
	{[]string{"STREET", "streetAddress"}, asn1.ObjectIdentifier{2, 5, 4, 9}, 128},
	{[]string{"O", "organizationName"}, asn1.ObjectIdentifier{2, 5, 4, 10}, 64},
	{[]string{"OU", "organizationalUnitName"}, asn1.ObjectIdentifier{2, 5, 4, 11}, 64},
	{[]string{"T", "title"}, asn1.ObjectIdentifier{2, 5, 4, 12}, 64},
	{[]string{"description"}, asn1.ObjectIdentifier{2, 5, 4, 13}, 1024},
	{[]string{"postalCode"}, asn1.ObjectIdentifier{2, 5, 4, 17}, 40},
	{[]string{"GN", "givenName"}, asn1.ObjectIdentifier{2, 5, 4, 42}, 64},
	{[]string{"initials"}, asn1.ObjectIdentifier{2, 5, 4, 43}, 64},
	{[]string{"dnQualifier"}, asn1.ObjectIdentifier{2, 5, 4, 46}, 64},
	{[]string{"pseudonym"}, asn1.ObjectIdentifier{2, 5, 4, 65}, 128},
	{[]string{"UID", "userId"}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, 256},
	{[]string{"DC", "domainComponent"}, oidDC, 0},
	{[]string{"emailAddress", "E", "email"}, oidEmail, 255},
}

var (
	oidCountry = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidDC      = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidEmail   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// isIA5 reports whether the attribute's values are IA5Strings.
func isIA5(oid asn1.ObjectIdentifier) bool { return oid.Equal(oidDC) || oid.Equal(oidEmail) }

// attributes returns the subject's attributes, of the raw form if there is
// one.
func attributes(t *x509.Certificate) []pkix.AttributeTypeAndValue {
	if t.RawSubject != nil {
		return t.Subject.Names
	}
	var all []pkix.AttributeTypeAndValue
	for _, rdn := range t.Subject.ToRDNSequence() {
		all = append(all, rdn...)
	}
	return all
}

func isEmpty(name pkix.Name) bool { return len(name.ToRDNSequence()) == 0 }

// checkSubject refuses subjects that break RFC 5280's bounds, or are empty,
// which IAM Roles Anywhere does not take.
func checkSubject(attrs []pkix.AttributeTypeAndValue) error {
	if len(attrs) == 0 {
		return errors.New("the subject is empty: IAM Roles Anywhere takes no certificate without one")
	}
	for _, a := range attrs {
		text, isString := a.Value.(string)
		if raw, ok := a.Value.(asn1.RawValue); ok {
			text, isString = string(raw.Bytes), true
		}
		if !isString {
			continue
		}
		name, limit := a.Type.String(), 0
		for _, t := range attributeTypes {
			if t.oid.Equal(a.Type) {
				name, limit = t.names[0], t.max
			}
		}
		n := utf8.RuneCountInString(text)
		switch {
		case n == 0:
			return fmt.Errorf("the subject's %s has no value", name)
		case strings.ContainsRune(text, 0):
			return fmt.Errorf("the subject's %s holds a NUL character", name)
		case a.Type.Equal(oidCountry) && n != 2:
			return fmt.Errorf("the subject's C is %q: it takes a country's code of two letters", text)
		case limit > 0 && n > limit:
			return fmt.Errorf("the subject's %s has %d characters, %d are the most", name, n, limit)
		}
	}
	return nil
}
