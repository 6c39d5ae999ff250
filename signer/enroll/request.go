package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"

	"github.com/holdfast-iam/holdfast/signer"
)

// RequestOptions describe what a certificate signing request asks for. The
// subject must not be empty: IAM Roles Anywhere takes no certificate without.
type RequestOptions struct {
	Subject        pkix.Name
	DNSNames       []string
	EmailAddresses []string
	IPAddresses    []net.IP
	URIs           []*url.URL
}

// NewRequest returns a DER PKCS#10 request for key, signed by it. Its PEM type
// is "CERTIFICATE REQUEST".
func NewRequest(key crypto.Signer, o RequestOptions) ([]byte, error) {
	der, err := newRequest(key, o)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return der, nil
}

func newRequest(key crypto.Signer, o RequestOptions) ([]byte, error) {
	if err := checkSubject(attributes(&x509.Certificate{Subject: o.Subject})); err != nil {
		return nil, err
	}
	if err := checkNames(o.DNSNames, o.EmailAddresses, o.IPAddresses, o.URIs); err != nil {
		return nil, err
	}
	scheme, err := signatureSchemeOf(key.Public())
	if err != nil {
		return nil, err
	}
	spki, _, err := publicKeyInfo(key.Public())
	if err != nil {
		return nil, err
	}
	throwAway, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:        o.Subject,
		DNSNames:       o.DNSNames,
		EmailAddresses: o.EmailAddresses,
		IPAddresses:    o.IPAddresses,
		URIs:           o.URIs,
	}, throwAway)
	if err != nil {
		return nil, err
	}
	// CertificationRequestInfo: version, subject, subjectPKInfo, attributes
	// (RFC 2986, section 4.1).
	return resign(der, map[int][]byte{2: spki}, scheme, key)
}

// ParseRequest reads a request, PEM or DER, and checks that its key signed it.
// Errors about the request's form or signature wrap [signer.ErrMalformed], those
// about its key [signer.ErrUnsupportedKey].
func ParseRequest(pemOrDER []byte) (*x509.CertificateRequest, error) {
	der, err := requestDER(pemOrDER)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w: %v", signer.ErrMalformed, err)
	}
	if _, err := checkRequest(csr); err != nil {
		return nil, fmt.Errorf("certificate request %q: %w", csr.Subject, err)
	}
	return csr, nil
}

func requestDER(data []byte) ([]byte, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%w: there is nothing in it", signer.ErrMalformed)
	}
	other := ""
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
			return block.Bytes, nil
		}
		other = block.Type
	}
	if other != "" {
		return nil, fmt.Errorf("%w: a PEM block %q and no %q", signer.ErrMalformed, other, "CERTIFICATE REQUEST")
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return nil, fmt.Errorf("%w: the PEM text is damaged", signer.ErrMalformed)
	}
	return data, nil
}

// checkRequest checks the proof of possession and returns the public key.
func checkRequest(csr *x509.CertificateRequest) (crypto.PublicKey, error) {
	pub, err := signer.ParsePublicKey(csr.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, err
	}
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	if csr.PublicKey != nil {
		err = csr.CheckSignature()
	} else {
		err = checkMLDSA(csr, pub)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its signature is not its key's: %v", signer.ErrMalformed, err)
	}
	return pub, nil
}

func checkMLDSA(csr *x509.CertificateRequest, pub crypto.PublicKey) error {
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(csr.Raw, &outer); err != nil {
		return err
	}
	scheme, err := signatureSchemeOf(pub)
	if err != nil {
		return err
	}
	if got, err := asn1.Marshal(outer.Algorithm); err != nil || !bytes.Equal(got, scheme.algorithm) {
		return fmt.Errorf("signature algorithm %v does not fit a %s key", outer.Algorithm.Algorithm, signer.DescribeKey(pub))
	}
	return signer.Verify(pub, csr.RawTBSCertificateRequest, csr.Signature, scheme.hash)
}
