package rolesanywhere_test

import (
	"crypto/x509"
	"encoding/pem"

	"github.com/holdfast-iam/holdfast/signer/enroll"
)

func certificates(ca *enroll.CA) []*x509.Certificate { return certificatesOf(ca.Certificate) }

func certificatesOf(c ...*x509.Certificate) []*x509.Certificate { return c }

func pemCRL(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}
