package evidence

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// VerifyOptions are the CA's.
type VerifyOptions struct {
	// EKRoots are the roots of the TPM makers that are trusted to certify
	// genuine TPMs only, and EKIntermediates CAs below them, in addition to
	// those in the bundle.
	EKRoots         *x509.CertPool
	EKIntermediates []*x509.Certificate

	// EKs are fingerprints ([Fingerprint]) of endorsement keys that are
	// trusted without a certificate.
	EKs [][]byte

	// Nonce is what the CA gave the device. Nil accepts a bundle of any age,
	// and any nonce in it. An empty one that is not nil is an error: it would
	// make nothing fresh.
	Nonce []byte

	// Proven are what right answers to challenges proved before
	// ([Pending.Binding]).
	Proven []Binding

	// Time is when certificates have to be valid. The zero value means now.
	Time time.Time
}

// A Result is what a verified bundle says. Without Proven it is a claim.
type Result struct {
	// Proven is set if the AK is known to be in the EK's TPM. If it is not,
	// follow with [Seal] or [NewChallenge].
	Proven bool

	// Fresh is set if the bundle was made for the nonce that was asked for.
	Fresh bool

	// PublicKey is the request's key, Public and KeyName are its public area
	// and Name in the TPM.
	PublicKey crypto.PublicKey
	Public    tpm2.TPMTPublic
	KeyName   []byte

	// Binding is what is to be proven, and what to add to
	// [VerifyOptions.Proven] when it is.
	Binding Binding

	// EKCertificate is nil if the EK is trusted by its fingerprint alone: a
	// certificate that leads to no root says nothing.
	EKCertificate *x509.Certificate
	EKFingerprint []byte

	// Manufacturer, Model and Version are EKCertificate's.
	Manufacturer, Model, Version string

	// Firmware is the version that the AK's statement has.
	Firmware uint64

	// PCRs are the quoted values, nil without a quote.
	PCRs policy.Values

	ek, ak tpm2.TPMTPublic
}

// Verify checks that a bundle is evidence of the request's key, and refuses it
// with one of the package's errors. It does not prove that the AK is in the
// EK's TPM: see [Result.Proven] and the package's documentation.
func Verify(b *Bundle, csr []byte, o VerifyOptions) (*Result, error) {
	r, err := verify(b, csr, o)
	if err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	return r, nil
}

func verify(b *Bundle, csr []byte, o VerifyOptions) (*Result, error) {
	if err := checkVersion(b.Version); err != nil {
		return nil, err
	}
	if err := b.checkLimits(); err != nil {
		return nil, err
	}
	if o.Nonce != nil && len(o.Nonce) == 0 {
		return nil, fmt.Errorf("%w: the one asked for is empty", ErrNonce)
	}
	request, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	if o.Nonce != nil && !bytes.Equal(o.Nonce, b.Nonce) {
		return nil, signer.WithHint(fmt.Errorf("%w: it has %x, %x was asked for", ErrNonce, b.Nonce, o.Nonce),
			"collect the evidence anew with the nonce of this enrolment")
	}
	r := &Result{Fresh: o.Nonce != nil}
	if err := r.endorsement(b, o); err != nil {
		return nil, err
	}
	if r.ak, err = parsePublic(b.AK.Public, "attestation key"); err != nil {
		return nil, err
	}
	if err := checkAK(r.ak); err != nil {
		return nil, err
	}
	if r.Binding.AK, err = nameOf(r.ak, "attestation key"); err != nil {
		return nil, err
	}
	r.Proven = slices.ContainsFunc(o.Proven, func(p Binding) bool {
		return bytes.Equal(p.EK, r.Binding.EK) && bytes.Equal(p.AK, r.Binding.AK)
	})

	attest, err := checkStatement(r.ak, b.Key.Attest, b.Key.Signature, tpm2.TPMSTAttestCertify)
	if err != nil {
		return nil, fmt.Errorf("the key's certification: %w", err)
	}
	qualifying := Qualifying(b.Nonce, csr)
	if !bytes.Equal(attest.ExtraData.Buffer, qualifying) {
		return nil, fmt.Errorf("the key's certification: %w, or another nonce", ErrBinding)
	}
	if err := r.key(b, request, attest); err != nil {
		return nil, err
	}
	r.Firmware = attest.FirmwareVersion
	if b.Quote == nil {
		return r, nil
	}
	quoted, err := checkStatement(r.ak, b.Quote.Attest, b.Quote.Signature, tpm2.TPMSTAttestQuote)
	if err != nil {
		return nil, fmt.Errorf("the quote: %w", err)
	}
	if !bytes.Equal(quoted.ExtraData.Buffer, qualifying) {
		return nil, fmt.Errorf("the quote: %w, or another nonce", ErrBinding)
	}
	r.PCRs, err = checkQuoted(b.Quote, quoted)
	return r, err
}

// endorsement checks the EK.
func (r *Result) endorsement(b *Bundle, o VerifyOptions) (err error) {
	if r.ek, err = parsePublic(b.EK.Public, "endorsement key"); err != nil {
		return err
	}
	if !slices.ContainsFunc(ekKinds(), func(k ekKind) bool { return fits(r.ek, k.template) }) {
		return fmt.Errorf("%w: it is of none of the default templates", ErrEKTemplate)
	}
	key, err := publicKey(r.ek, "endorsement key")
	if err != nil {
		return err
	}
	if r.Binding.EK, err = nameOf(r.ek, "endorsement key"); err != nil {
		return err
	}
	if r.EKFingerprint, err = Fingerprint(key); err != nil {
		return err
	}
	pinned := slices.ContainsFunc(o.EKs, func(fp []byte) bool { return bytes.Equal(fp, r.EKFingerprint) })
	if len(b.EK.Certificate) == 0 {
		if pinned {
			return nil
		}
		return signer.WithHint(fmt.Errorf("%w: the bundle has none, and the key %x is not known", ErrNoEKCertificate, r.EKFingerprint),
			"get the certificate from the TPM's maker and collect the evidence with it, or trust the key by its fingerprint")
	}
	cert, err := parseEKCertificate(b.EK.Certificate)
	if err != nil {
		return err
	}
	if !signer.SamePublicKey(cert.key, key) {
		return ErrEKMismatch
	}
	if err := cert.verifyChain(o.EKRoots, b.EK.Chain, o.EKIntermediates, o.Time); err != nil {
		if pinned {
			return nil
		}
		return err
	}
	r.EKCertificate = cert.Certificate
	r.Manufacturer, r.Model, r.Version = cert.names()
	return nil
}

// key checks the signing key, from the AK's statement to the request.
func (r *Result) key(b *Bundle, request *x509.CertificateRequest, attest *tpm2.TPMSAttest) (err error) {
	if r.Public, err = parsePublic(b.Key.Public, "signing key"); err != nil {
		return err
	}
	if r.KeyName, err = nameOf(r.Public, "signing key"); err != nil {
		return err
	}
	certified, err := attest.Attested.Certify()
	if err != nil {
		return fmt.Errorf("the key's certification: %w: %v", ErrStatement, err)
	}
	if !bytes.Equal(certified.Name.Buffer, r.KeyName) {
		return fmt.Errorf("%w: its Name is %x, the bundle's key's %x", ErrKeyName, certified.Name.Buffer, r.KeyName)
	}
	if err := checkKey(r.Public, request); err != nil {
		return err
	}
	r.PublicKey = request.PublicKey
	return nil
}

// checkKey checks that pub is the request's key and cannot be elsewhere. That it
// decrypts as well, as all of tpm2-openssl's do, does not move it.
func checkKey(pub tpm2.TPMTPublic, request *x509.CertificateRequest) error {
	key, err := publicKey(pub, "signing key")
	if err != nil {
		return err
	}
	if !signer.SamePublicKey(key, request.PublicKey) {
		return fmt.Errorf("%w: the request %q is for another key than the TPM's %s key",
			signer.ErrKeyMismatch, request.Subject, signer.DescribeKey(key))
	}
	a := pub.ObjectAttributes
	return attributes(ErrKeyAttributes,
		attribute{a.FixedTPM, "it may be duplicated to another TPM (fixedTPM is not set)"},
		attribute{a.FixedParent, "it may be duplicated to another parent (fixedParent is not set)"},
		attribute{a.SensitiveDataOrigin, "it was not made by the TPM (sensitiveDataOrigin is not set)"},
		attribute{a.SignEncrypt, "it does not sign"},
		attribute{!a.Restricted, "it signs nothing but the TPM's own statements (restricted is set)"},
	)
}

// checkAK checks that pub was made by the AK's template. There is no other
// that Collect uses, so what it leaves open for nothing, such as a policy, is
// not for a device to choose.
func checkAK(pub tpm2.TPMTPublic) error {
	if fits(pub, akTemplate()) {
		return nil
	}
	a := pub.ObjectAttributes
	ecdsa := false
	if p, err := pub.Parameters.ECCDetail(); pub.Type == tpm2.TPMAlgECC && err == nil && p.Scheme.Scheme == tpm2.TPMAlgECDSA {
		scheme, err := p.Scheme.Details.ECDSA()
		ecdsa = err == nil && scheme.HashAlg == tpm2.TPMAlgSHA256 && p.CurveID == tpm2.TPMECCNistP256
	}
	if err := attributes(ErrAKAttributes,
		attribute{ecdsa, "it is no P-256 key that signs with ECDSA and SHA-256 only"},
		attribute{a.Restricted, "it signs what it is given, not only the TPM's statements (restricted is not set)"},
		attribute{a.SignEncrypt, "it does not sign"},
		attribute{!a.Decrypt, "it decrypts as well"},
		attribute{a.FixedTPM, "it may be duplicated to another TPM (fixedTPM is not set)"},
		attribute{a.FixedParent, "it may be duplicated to another parent (fixedParent is not set)"},
		attribute{a.SensitiveDataOrigin, "it was not made by the TPM (sensitiveDataOrigin is not set)"},
	); err != nil {
		return err
	}
	return fmt.Errorf("%w: it is of another template", ErrAKAttributes)
}

type attribute struct {
	good bool
	or   string
}

func attributes(reason error, all ...attribute) error {
	var bad []string
	for _, a := range all {
		if !a.good {
			bad = append(bad, a.or)
		}
	}
	if bad == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", reason, strings.Join(bad, "; "))
}
