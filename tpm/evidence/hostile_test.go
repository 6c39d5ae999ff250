package evidence_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/simulator"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

// certifyBy makes bundle's statement anew, by a key of another template or
// hierarchy.
func certifyBy(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, key *tpmKey, b *evidence.Bundle, csr []byte) {
	t.Helper()
	ak, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer flush(t, tpm, ak.ObjectHandle)
	rsp, err := tpm2.Certify{
		ObjectHandle:   tpm2.AuthHandle{Handle: key.key.Handle, Name: key.key.Name, Auth: tpm2.PasswordAuth([]byte(key.auth))},
		SignHandle:     tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: evidence.Qualifying(b.Nonce, csr)},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	b.AK.Public, b.Key.Attest, b.Key.Signature = ak.OutPublic.Bytes(), rsp.CertifyInfo.Bytes(), tpm2.Marshal(rsp.Signature)
}

// Only the AK that every TPM makes alike is taken, and only as a key of the
// endorsement hierarchy: of others the TPM hides clock and firmware version.
func TestOtherAKs(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	tpm := ca.newTPM(t)
	key := newKey(t, tpm, signing(), "")
	defer key.unload()
	csr := request(t, key)
	good := collect(t, tpm, key.evidence(), csr, evidence.Options{})
	same := copyOf(t, good)
	certifyBy(t, tpm, tpm2.TPMRHEndorsement, evidence.AKTemplate(), key, same, csr)
	if _, err := evidence.Verify(same, csr, ca.options(t)); err != nil {
		t.Errorf("the AK made again: %v", err)
	}
	withPolicy, guarded, sha384 := evidence.AKTemplate(), evidence.AKTemplate(), evidence.AKTemplate()
	withPolicy.AuthPolicy.Buffer = make([]byte, 32)
	guarded.ObjectAttributes.NoDA = false
	sha384.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256,
		Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA384})}})
	for name, c := range map[string]struct {
		hierarchy tpm2.TPMHandle
		template  tpm2.TPMTPublic
	}{
		"of the owner's hierarchy": {tpm2.TPMRHOwner, evidence.AKTemplate()},
		"of the null hierarchy":    {tpm2.TPMRHNull, evidence.AKTemplate()},
		"with a policy":            {tpm2.TPMRHEndorsement, withPolicy},
		"with DA":                  {tpm2.TPMRHEndorsement, guarded},
		"for SHA-384":              {tpm2.TPMRHEndorsement, sha384},
	} {
		b := copyOf(t, good)
		certifyBy(t, tpm, c.hierarchy, c.template, key, b, csr)
		if r, err := evidence.Verify(b, csr, ca.options(t)); !errors.Is(err, evidence.ErrAKAttributes) || r != nil {
			t.Errorf("an AK %s: %v", name, err)
		}
	}
}

// The evidence rests on it that a TPM certifies no key of which it has the
// public area only: anybody can write that down with the best of attributes and
// a policy that allows its certification.
func TestPublicOnlyIsNotCertified(t *testing.T) {
	t.Parallel()
	tpm := newLocalCA(t).newTPM(t)
	session, done, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := (tpm2.PolicyCommandCode{PolicySession: session.Handle(), Code: tpm2.TPMCCCertify}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	digest, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	for _, adminWithPolicy := range []bool{false, true} {
		a := signing()
		a.AdminWithPolicy = adminWithPolicy
		pub := template(a)
		pub.AuthPolicy = digest.PolicyDigest
		loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(publicOf(t, softwareKey(t), pub)), Hierarchy: tpm2.TPMRHOwner}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		for _, auth := range []tpm2.Session{session, tpm2.PasswordAuth(nil)} {
			_, err := tpm2.Certify{
				ObjectHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: auth},
				SignHandle:   tpm2.AuthHandle{Handle: tpm2.TPMRHNull, Auth: tpm2.PasswordAuth(nil)},
				InScheme:     tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			}.Execute(tpm)
			if !errors.Is(err, tpm2.TPMRCAuthUnavailable) && !errors.Is(err, tpm2.TPMRCAuthType) {
				t.Errorf("certifying a public area: %v", err)
			}
		}
		flush(t, tpm, loaded.ObjectHandle)
	}
}

// Sizes are the bundle's author's to choose.
func TestLimits(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	tpm := ca.newTPM(t)
	key := newKey(t, tpm, signing(), "")
	defer key.unload()
	csr := request(t, key)
	good := collect(t, tpm, key.evidence(), csr, evidence.Options{})
	options := ca.options(t)
	r, err := evidence.Verify(good, csr, options)
	if err != nil {
		t.Fatal(err)
	}
	options.Nonce = []byte{}
	if _, err := evidence.Verify(good, csr, options); !errors.Is(err, evidence.ErrNonce) {
		t.Errorf("an empty nonce makes it fresh: %v", err)
	}
	options.Nonce = nil
	for name, edit := range map[string]func(*evidence.Bundle){
		"nonce": func(b *evidence.Bundle) { b.Nonce = make([]byte, 65) },
		"chain": func(b *evidence.Bundle) { b.EK.Chain = make([][]byte, 9) },
	} {
		b := copyOf(t, good)
		edit(b)
		if _, err := evidence.Verify(b, csr, options); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("a long %s: %v", name, err)
		}
	}

	// An RSA key of a megabit takes a minute for each signature that is checked.
	huge := hugeKey()
	if _, err := evidence.Verify(good, hugeRequest(t, huge), options); !errors.Is(err, evidence.ErrRequest) || !strings.Contains(err.Error(), "more than 8192 bits") {
		t.Errorf("a request with a huge key: %v", err)
	}
	b := copyOf(t, good)
	ek, err := x509.ParseCertificate(good.EK.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	issuer, leaf := hugeIssuer(t, ek, huge)
	b.EK.Chain, b.EK.Certificate = [][]byte{issuer}, leaf
	if _, err := evidence.Verify(b, csr, options); !errors.Is(err, evidence.ErrEKUntrusted) || strings.Contains(err.Error(), "candidate authority") {
		t.Errorf("an EK certificate by a huge key: %v", err)
	}

	if _, err := evidence.Seal(r, make([]byte, 1<<20)); err == nil {
		t.Error("a challenge that no device will read")
	}
	challenge, err := evidence.Seal(r, make([]byte, 1<<19))
	if err != nil {
		t.Fatal(err)
	}
	data, err := challenge.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.ParseChallenge(data); err != nil {
		t.Errorf("the largest challenge: %v", err)
	}
	for _, edit := range []func(*evidence.Challenge){
		func(c *evidence.Challenge) { c.Credential = make([]byte, 1<<16+40) },
		func(c *evidence.Challenge) { c.Secret = make([]byte, 1<<16+40) },
	} {
		c := *challenge
		edit(&c)
		if _, err := evidence.Respond(ctx, tpm, &c, evidence.Options{}); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("a challenge that no command holds: %v", err)
		}
	}
}

func hugeKey() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1<<20), big.NewInt(1)), E: 1<<31 - 1}
}

var sha256WithRSA = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}

// signedBy is a certificate or request with a signature of k's size.
func signedBy(t *testing.T, tbs []byte, k *rsa.PublicKey) []byte {
	t.Helper()
	sig := bytes.Repeat([]byte{1}, k.Size())
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, sha256WithRSA, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func hugeRequest(t *testing.T, k *rsa.PublicKey) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := asn1.Marshal(struct {
		Version    int
		Subject    pkix.RDNSequence
		Key        asn1.RawValue
		Attributes asn1.RawValue
	}{0, nil, asn1.RawValue{FullBytes: spki}, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true}})
	if err != nil {
		t.Fatal(err)
	}
	return signedBy(t, tbs, k)
}

// hugeIssuer makes a CA of k, and an EK certificate that says it is by that CA.
func hugeIssuer(t *testing.T, ek *x509.Certificate, k *rsa.PublicKey) (ca, leaf []byte) {
	t.Helper()
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	caTemplate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	if ca, err = x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, k, signer); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: ek.UnknownExtKeyUsage}
	der, err := x509.CreateCertificate(rand.Reader, template, caTemplate, ek.PublicKey, crypto.Signer(signer))
	if err != nil {
		t.Fatal(err)
	}
	small, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca, signedBy(t, small.RawTBSCertificate, k)
}

// Reading certificates costs no lock-out try, whatever the index is like.
func TestGuardedIndex(t *testing.T) {
	tpm, err := simulator.OpenSimulator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tpm.Close() })
	checkLeaks(t, tpm)
	key := newKey(t, tpm, signing(), "")
	defer key.unload()
	csr := request(t, key)
	_, cert := ekCertificate(t, tpm)
	define := func(index tpm2.TPMHandle, a tpm2.TPMANV) {
		t.Helper()
		owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
		a.OwnerWrite = true
		_, err := tpm2.NVDefineSpace{AuthHandle: owner, Auth: tpm2.TPM2BAuth{Buffer: []byte("sesame")},
			PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(cert)), Attributes: a})}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		fillNV(t, tpm, index, cert)
	}
	define(0x01c00100, tpm2.TPMANV{AuthRead: true})
	if _, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{}); err != nil {
		t.Errorf("with a chain that is not for everybody: %v", err)
	}
	define(0x01c0000a, tpm2.TPMANV{AuthRead: true})
	if _, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{}); err == nil || signer.Hint(err) == "" {
		t.Errorf("with a certificate that is not for everybody: %v", err)
	}
	if _, err := evidence.Collect(ctx, tpm, key.evidence(), csr, evidence.Options{EKCertificate: cert}); err != nil {
		t.Errorf("with the certificate given: %v", err)
	}
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil || len(list.TPMProperty) != 1 || list.TPMProperty[0].Value != 0 {
		t.Errorf("lock-out tries: %+v, %v", list, err)
	}
}
