package software

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// Object identifiers of PKCS#7 content types and PKCS#12 bags, as text.
const (
	oidData          = "1.2.840.113549.1.7.1"
	oidEncryptedData = "1.2.840.113549.1.7.6"
	oidKeyBag        = "1.2.840.113549.1.12.10.1.1"
	oidShroudedBag   = "1.2.840.113549.1.12.10.1.2"
	oidCertBag       = "1.2.840.113549.1.12.10.1.3"
	oidContentsBag   = "1.2.840.113549.1.12.10.1.6"
	oidX509          = "1.2.840.113549.1.9.22.1"
	oidLocalKeyID    = "1.2.840.113549.1.9.21"
)

// A pfx is a PKCS#12 file at work.
type pfx struct {
	*parser
	mac     *macData
	content []byte // what the MAC is over

	pass  password
	ready bool // pass is known, and right as far as a MAC can say

	keys    int    // bags with keys, to name them by
	keyID   []byte // localKeyID of the first key
	certIDs [][]byte
}

// pkcs12 reads a PFX (RFC 7292). It is this package's own reader because
// go-pkcs12 takes neither several keys, ML-DSA, BER, most digests nor
// certificates on their own.
func (p *parser) pkcs12(data []byte) error {
	data, rest, ok := berToDER(data)
	if !ok {
		return p.at("", malformed("PKCS#12 that is cut short or damaged"))
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return p.at("", malformed("%d bytes too many after its end", len(rest)))
	}
	x := &pfx{parser: p}
	safes, err := x.open(data)
	if err == nil {
		err = x.readSafes(safes)
	}
	if err != nil {
		return p.at("", p.pkcs12Hint(err))
	}
	x.sortCertificates()
	return nil
}

// open reads the outer layer and returns the SEQUENCE OF ContentInfo in it.
func (x *pfx) open(data []byte) (cryptobyte.String, error) {
	s := cryptobyte.String(data)
	var in, safe cryptobyte.String
	var version int
	if !s.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1Integer(&version) || version != 3 {
		return nil, malformed("not PKCS#12")
	}
	kind, content, err := readContentInfo(&in)
	if err != nil {
		return nil, err
	}
	if kind != oidData {
		return nil, unsupported("PKCS#12 that is signed with a key rather than a passphrase")
	}
	if !content.ReadASN1(&safe, der.OCTET_STRING) {
		return nil, malformed("PKCS#12 content")
	}
	x.content = safe
	if !in.Empty() {
		if x.mac, err = parseMAC(&in); err != nil {
			return nil, err
		}
	}
	return x.sequence(safe)
}

// readSafes reads every ContentInfo. With only certificates wanted, what is not
// encrypted needs no passphrase; keys are not trusted before the MAC is checked.
func (x *pfx) readSafes(safes cryptobyte.String) error {
	for !safes.Empty() {
		kind, content, err := readContentInfo(&safes)
		if err != nil {
			return err
		}
		var bags []byte
		switch kind {
		case oidData:
			var octets cryptobyte.String
			if !content.ReadASN1(&octets, der.OCTET_STRING) {
				return malformed("PKCS#12 safe")
			}
			bags = octets
		case oidEncryptedData:
			if bags, err = x.decryptSafe(content); err != nil {
				return err
			}
		default:
			return unsupported("PKCS#12 safe of type %s, encrypted for a certificate's key", kind)
		}
		contents, err := x.sequence(bags)
		if err != nil {
			if kind == oidEncryptedData && x.mac == nil {
				return errPassphrase
			}
			return err
		}
		if err := x.readBags(contents, 0); err != nil {
			return err
		}
	}
	return nil
}

// decryptSafe takes EncryptedData (RFC 5652, section 8).
func (x *pfx) decryptSafe(content cryptobyte.String) ([]byte, error) {
	var in, info, octets cryptobyte.String
	var version int
	if !content.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1Integer(&version) ||
		!in.ReadASN1(&info, der.SEQUENCE) || !info.SkipASN1(der.OBJECT_IDENTIFIER) {
		return nil, malformed("PKCS#12 encrypted safe")
	}
	alg, ok := readAlgorithm(&info)
	if !ok {
		return nil, malformed("PKCS#12 encrypted safe")
	}
	primitive := der.Tag(0).ContextSpecific()
	ciphertext := []byte(nil)
	if info.PeekASN1Tag(primitive.Constructed()) { // in pieces, as BER allows
		if ok = info.ReadASN1(&octets, primitive.Constructed()); ok {
			ciphertext, ok = joinOctets(octets)
		}
	} else {
		ok = info.ReadASN1(&octets, primitive)
		ciphertext = octets
	}
	if !ok {
		return nil, malformed("PKCS#12 encrypted safe")
	}
	if err := x.unlock(); err != nil {
		return nil, err
	}
	return x.decrypt(alg, ciphertext, x.pass)
}

// sequence returns the content of the SEQUENCE that data is.
func (x *pfx) sequence(data []byte) (cryptobyte.String, error) {
	out, rest, ok := berToDER(data)
	s := cryptobyte.String(out)
	var in cryptobyte.String
	if !ok || len(rest) != 0 || !s.ReadASN1(&in, der.SEQUENCE) {
		return nil, malformed("PKCS#12 content that is cut short or damaged")
	}
	return in, nil
}

// readContentInfo returns a ContentInfo's type and what is in its [0].
func readContentInfo(s *cryptobyte.String) (string, cryptobyte.String, error) {
	var content cryptobyte.String
	info, ok := readAlgorithm(s) // a SEQUENCE of an OID and a rest, like this
	if !ok || !info.params.ReadASN1(&content, der.Tag(0).Constructed().ContextSpecific()) {
		return "", nil, malformed("PKCS#12 content")
	}
	return info.oid.String(), content, nil
}

// unlock finds the passphrase. Where a MAC tells a right one, the empty one is
// tried before anyone is asked.
func (x *pfx) unlock() error {
	if x.ready {
		return nil
	}
	if x.mac != nil {
		for _, empty := range []password{newPassword(nil), {}} {
			ok, err := x.verifyMAC(x.mac, x.content, empty)
			if err != nil {
				return err
			}
			if ok {
				x.pass, x.ready = empty, true
				return nil
			}
			if x.mac.pbmac1 {
				break // both are alike to it
			}
		}
	}
	secret, err := x.passphrase()
	if err != nil {
		return err
	}
	x.pass = newPassword(secret)
	if x.mac != nil {
		ok, err := x.verifyMAC(x.mac, x.content, x.pass)
		if err != nil {
			return err
		}
		if !ok {
			return errPassphrase
		}
	}
	x.ready = true
	return nil
}

// sortCertificates puts the first key's certificate first: the one that bears
// its localKeyID or, if keys were read, its public key.
func (x *pfx) sortCertificates() {
	certs := x.out.Certificates
	at := -1
	for i, id := range x.certIDs {
		if len(x.keyID) > 0 && bytes.Equal(id, x.keyID) && at < 0 {
			at = i
		}
	}
	if len(x.out.Keys) > 0 {
		for i, c := range certs {
			if samePublicKey(c, x.out.Keys[0]) {
				at = i
				break
			}
		}
	}
	if at > 0 {
		leaf := certs[at]
		copy(certs[1:at+1], certs[:at])
		certs[0] = leaf
	}
}

func samePublicKey(cert *x509.Certificate, key crypto.Signer) bool {
	pub, err := signer.PublicKey(cert)
	return err == nil && signer.SamePublicKey(pub, key.Public())
}

func (p *parser) pkcs12Hint(err error) error {
	if signer.Hint(err) == "" && errors.Is(err, errEncryption) {
		return signer.WithHint(err,
			"convert it: openssl pkcs12 -provider default -provider legacy -in "+shellQuote(p.name)+" -out new.pem")
	}
	return err
}
