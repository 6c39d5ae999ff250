package software

import (
	"bytes"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// der reads a file that is not PEM, telling what it is by its first fields.
func (p *parser) der(data []byte) error {
	if data[0] != 0x30 {
		return p.at("", malformed("neither PEM, DER nor PKCS#12"))
	}
	if len(data) > 1 && data[1] == 0x80 {
		return p.pkcs12(data) // BER of indefinite length: only PKCS#12 is written so
	}
	whole, rest, ok := element(data)
	if !ok {
		return p.at("", malformed("%s", whyNoElement(data)))
	}
	s := cryptobyte.String(whole)
	var in cryptobyte.String
	if !s.ReadASN1(&in, der.SEQUENCE) {
		return p.at("", malformed("not DER"))
	}
	kind := sniff(in)
	if len(bytes.TrimSpace(rest)) != 0 && kind != kindCertificate {
		return p.at("", malformed("%d bytes too many after its end", len(rest)))
	}
	switch kind {
	case kindKey:
		return p.key("", whole, false)
	case kindEncryptedKey:
		return p.key("", whole, true)
	case kindPKCS12:
		return p.pkcs12(whole)
	case kindCertificate:
		return p.certificates(whole, rest)
	case kindTPMKey:
		p.other(tpmKey, whole)
		return nil
	case kindPublic:
		return nil
	case kindPKCS7:
		return signer.WithHint(p.at("", unsupported("PKCS#7")),
			"convert it: openssl pkcs7 -print_certs -inform DER -in "+shellQuote(p.name)+" -out certificates.pem")
	}
	return p.at("", malformed("DER, but neither a key, a certificate nor PKCS#12"))
}

// certificates reads one DER certificate after another.
func (p *parser) certificates(first, rest []byte) error {
	for {
		if err := p.certificate("", first); err != nil || len(bytes.TrimSpace(rest)) == 0 {
			return err
		}
		var ok bool
		after := len(rest)
		if first, rest, ok = element(rest); !ok || first[0] != 0x30 {
			return p.at("", malformed("%d bytes too many after the certificate", after))
		}
	}
}

type kind int

const (
	kindUnknown kind = iota
	kindKey
	kindEncryptedKey
	kindCertificate
	kindPKCS12
	kindPKCS7
	kindPublic // a public key or a certificate request
	kindTPMKey
)

// sniff tells what a file is by the first fields in its outer SEQUENCE.
func sniff(in cryptobyte.String) kind {
	var first cryptobyte.String
	var tag der.Tag
	if !in.ReadAnyASN1(&first, &tag) {
		return kindUnknown
	}
	switch tag {
	case der.INTEGER:
		if len(first) == 1 && first[0] == 3 && in.PeekASN1Tag(der.SEQUENCE) {
			return kindPKCS12
		}
		if in.PeekASN1Tag(der.SEQUENCE) || in.PeekASN1Tag(der.INTEGER) || in.PeekASN1Tag(der.OCTET_STRING) {
			return kindKey
		}
	case der.OBJECT_IDENTIFIER:
		// 2.23.133.10.1.3 is TPM Loadable Key; 1.2.840.113549.1.7 is PKCS#7.
		if bytes.Equal(first, []byte{0x67, 0x81, 0x05, 0x0a, 0x01, 0x03}) {
			return kindTPMKey
		}
		if bytes.HasPrefix(first, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07}) {
			return kindPKCS7
		}
	case der.SEQUENCE:
		switch {
		case first.PeekASN1Tag(der.OBJECT_IDENTIFIER) && in.PeekASN1Tag(der.OCTET_STRING):
			return kindEncryptedKey
		case first.PeekASN1Tag(der.OBJECT_IDENTIFIER) && in.PeekASN1Tag(der.BIT_STRING):
			return kindPublic
		case in.PeekASN1Tag(der.SEQUENCE) && isRequest(first):
			return kindPublic
		case in.PeekASN1Tag(der.SEQUENCE):
			return kindCertificate
		}
	}
	return kindUnknown
}

// isRequest tells a CertificationRequestInfo, which has a version, a name, a
// public key and attributes, from a TBSCertificate.
func isRequest(in cryptobyte.String) bool {
	var version int
	attributes := der.Tag(0).Constructed().ContextSpecific()
	return in.ReadASN1Integer(&version) && version == 0 && in.SkipASN1(der.SEQUENCE) && in.SkipASN1(der.SEQUENCE) &&
		(in.Empty() || in.PeekASN1Tag(attributes))
}

// element splits data after its first DER element.
func element(data []byte) (whole, rest []byte, ok bool) {
	s := cryptobyte.String(data)
	var e cryptobyte.String
	var tag der.Tag
	if !s.ReadAnyASN1Element(&e, &tag) {
		return nil, nil, false
	}
	return e, s, true
}

// whyNoElement says why data is no DER element.
func whyNoElement(data []byte) string {
	if len(data) < 2 {
		return "cut short"
	}
	size, head := int(data[1]), 2
	if size > 0x80 && size <= 0x84 {
		n := size - 0x80
		if len(data) < 2+n {
			return "cut short"
		}
		size, head = 0, 2+n
		for _, b := range data[2:head] {
			size = size<<8 | int(b)
		}
	}
	if data[0] == 0x30 && size+head > len(data) && size != 0x80 {
		return fmt.Sprintf("cut short: %d bytes of %d", len(data), size+head)
	}
	return "not DER"
}

// An algorithm is an AlgorithmIdentifier (RFC 5280); params is the parameters'
// whole element, or empty.
type algorithm struct {
	oid    asn1.ObjectIdentifier
	params cryptobyte.String
}

func readAlgorithm(s *cryptobyte.String) (algorithm, bool) {
	var in cryptobyte.String
	var a algorithm
	ok := s.ReadASN1(&in, der.SEQUENCE) && in.ReadASN1ObjectIdentifier(&a.oid)
	a.params = in
	return a, ok
}
