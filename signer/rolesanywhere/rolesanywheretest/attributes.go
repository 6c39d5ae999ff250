package rolesanywheretest

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// CertificateField is the part of a certificate a mapping draws from.
type CertificateField string

// The fields of an AttributeMapping; each is also its tags' prefix.
const (
	Subject CertificateField = "x509Subject"
	Issuer  CertificateField = "x509Issuer"
	SAN     CertificateField = "x509SAN"
)

// AttributeMapping selects attributes of one field. A specifier of Subject and
// Issuer is a relative distinguished name, "OU", or "*" for all; of SAN it is
// "DNS", "URI", "Name/OU", "Name/*" or "*".
type AttributeMapping struct {
	Field      CertificateField
	Specifiers []string
}

// DefaultAttributeMappings returns the mapping of a profile that has none of
// its own: the whole subject, the whole issuer, and the first DNS name, URI
// and directory name of the subject alternative names.
func DefaultAttributeMappings() []AttributeMapping {
	return []AttributeMapping{
		{Subject, []string{"*"}},
		{Issuer, []string{"*"}},
		{SAN, []string{"DNS", "URI", "Name/*"}},
	}
}

// attribute is a value of a certificate under the name a specifier gives it.
type attribute struct{ name, value string }

// mapAttributes returns the session tags. If some values are no legal tags it
// returns which, in AWS's words: "Issuer: [  ]; Subject: [  ]; SAN: [ DNS ]".
// How more than one name is divided was not observed.
func mapAttributes(leaf *x509.Certificate, mappings []AttributeMapping) (tags map[string]string, failed string) {
	if mappings == nil {
		mappings = DefaultAttributeMappings()
	}
	tags = make(map[string]string)
	illegal := make(map[CertificateField][]string)
	for _, mapping := range mappings {
		for _, a := range attributesOf(leaf, mapping.Field) {
			if !slices.ContainsFunc(mapping.Specifiers, a.selected) {
				continue
			}
			tags[string(mapping.Field)+"/"+a.name] = a.value
			if !legalTag(a.value) && !slices.Contains(illegal[mapping.Field], a.name) {
				illegal[mapping.Field] = append(illegal[mapping.Field], a.name)
			}
		}
	}
	if len(illegal) == 0 {
		return tags, ""
	}
	list := func(field CertificateField) string { return "[ " + strings.Join(illegal[field], ", ") + " ]" }
	return nil, "Issuer: " + list(Issuer) + "; Subject: " + list(Subject) + "; SAN: " + list(SAN)
}

func (a attribute) selected(specifier string) bool {
	prefix, all := strings.CutSuffix(specifier, "*")
	return specifier == a.name || all && strings.HasPrefix(a.name, prefix)
}

// legalTag reports whether STS takes the value for a session tag.
func legalTag(value string) bool {
	return utf8.ValidString(value) && utf8.RuneCountInString(value) <= 256 &&
		matches(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`, value)
}

func attributesOf(leaf *x509.Certificate, field CertificateField) []attribute {
	switch field {
	case Subject:
		return nameAttributes(leaf.RawSubject, "")
	case Issuer:
		return nameAttributes(leaf.RawIssuer, "")
	case SAN:
		return sanAttributes(leaf)
	}
	return nil
}

// nameAttributes returns the attributes of a distinguished name in the order
// of their first appearance; values of the same type are joined by "/".
func nameAttributes(der []byte, prefix string) []attribute {
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &sequence); err != nil {
		return nil
	}
	var attributes []attribute
	for _, set := range sequence {
		for _, pair := range set {
			name, value := prefix+shortName(pair.Type), fmt.Sprint(pair.Value)
			i := slices.IndexFunc(attributes, func(a attribute) bool { return a.name == name })
			if i < 0 {
				attributes = append(attributes, attribute{name, value})
				continue
			}
			attributes[i].value += "/" + value
		}
	}
	return attributes
}

// sanAttributes returns the first DNS name, URI and directory name. It reads
// the extension itself: crypto/x509 has no directory names and rewrites URIs.
func sanAttributes(leaf *x509.Certificate) []attribute {
	const dnsName, directoryName, uri = 2, 4, 6 // RFC 5280, section 4.2.1.6
	i := slices.IndexFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "2.5.29.17" })
	if i < 0 {
		return nil
	}
	var names []asn1.RawValue
	if _, err := asn1.Unmarshal(leaf.Extensions[i].Value, &names); err != nil {
		return nil
	}
	var attributes []attribute
	seen := make(map[int]bool)
	for _, name := range names {
		if name.Class != asn1.ClassContextSpecific || seen[name.Tag] {
			continue
		}
		seen[name.Tag] = true
		switch name.Tag {
		case dnsName:
			attributes = append(attributes, attribute{"DNS", string(name.Bytes)})
		case uri:
			attributes = append(attributes, attribute{"URI", string(name.Bytes)})
		case directoryName:
			attributes = append(attributes, nameAttributes(name.Bytes, "Name/")...)
		}
	}
	return attributes
}

// shortName returns the name RFC 4514 and OpenSSL have for an attribute type,
// or its dotted OID.
func shortName(oid asn1.ObjectIdentifier) string {
	text := oid.String()
	switch text {
	case "2.5.4.3":
		return "CN"
	case "2.5.4.4":
		return "SN"
	case "2.5.4.5":
		return "serialNumber"
	case "2.5.4.6":
		return "C"
	case "2.5.4.7":
		return "L"
	case "2.5.4.8":
		return "ST"
	case "2.5.4.9":
		return "street"
	case "2.5.4.10":
		return "O"
	case "2.5.4.11":
		return "OU"
	case "2.5.4.12":
		return "title"
	case "2.5.4.42":
		return "GN"
	case "0.9.2342.19200300.100.1.1":
		return "UID"
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	case "1.2.840.113549.1.9.1":
		return "emailAddress"
	}
	return text
}
