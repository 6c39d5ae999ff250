package rolesanywhere

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

// Errors of [CheckCertificate].
var (
	ErrCertificateExpired     = errors.New("certificate has expired")
	ErrCertificateNotYetValid = errors.New("certificate is not valid yet")
	ErrCertificateUnfit       = errors.New("IAM Roles Anywhere does not take this certificate")
)

// CheckCertificate reports what IAM Roles Anywhere would refuse in an
// end-entity certificate at the given time, before anything is sent: validity,
// a CA's certificate, a key usage without digitalSignature, a SHA-1 or MD5
// signature, an empty subject, an RSA key under 2048 bits.
func CheckCertificate(cert *x509.Certificate, at time.Time) error {
	const day = "2006-01-02 15:04:05Z"
	name := fmt.Sprintf("%q (serial %x)", cert.Subject, cert.SerialNumber)
	unfit := func(why, hint string) error {
		return signer.WithHint(fmt.Errorf("%w %s: %s", ErrCertificateUnfit, name, why), hint)
	}
	switch rsaKey, isRSA := cert.PublicKey.(*rsa.PublicKey); {
	case at.After(cert.NotAfter):
		return signer.WithHint(
			fmt.Errorf("%w: %s ended at %s, now is %s", ErrCertificateExpired, name, cert.NotAfter.UTC().Format(day), at.UTC().Format(day)),
			"renew the certificate, or set this machine's clock if it is wrong")
	case at.Before(cert.NotBefore):
		return signer.WithHint(
			fmt.Errorf("%w: %s begins at %s, now is %s", ErrCertificateNotYetValid, name, cert.NotBefore.UTC().Format(day), at.UTC().Format(day)),
			"set this machine's clock, or wait")
	case cert.Version != 3:
		return unfit(fmt.Sprintf("it is X.509 version %d, not 3", cert.Version), "issue a version 3 certificate with a key usage extension")
	case cert.IsCA:
		return unfit("it is a CA's certificate (basicConstraints CA:TRUE)", "name the end-entity certificate; CA certificates go into the trust anchor and --intermediates")
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return unfit("its key usage lacks digitalSignature", "issue it with keyUsage = critical, digitalSignature")
	case len(cert.Subject.Names) == 0:
		return unfit("its subject is empty", "issue it with a subject, at least a CN")
	case isRSA && rsaKey.N.BitLen() < 2048:
		return unfit(fmt.Sprintf("its RSA key has %d bits, at least 2048 are needed", rsaKey.N.BitLen()), "create a larger key and request a certificate for it")
	case weakSignature(cert.SignatureAlgorithm):
		return unfit(fmt.Sprintf("it is signed with %s, at least SHA-256 is needed", cert.SignatureAlgorithm), "have the CA issue it again with SHA-256")
	}
	return nil
}

func weakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}
