package evidence_test

import (
	"crypto/x509"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

// prove goes from a key to proof that it is in the TPM.
func prove(t *testing.T, tpm transport.TPM, o evidence.Options, v evidence.VerifyOptions) *evidence.Result {
	t.Helper()
	key := newKey(t, tpm, signing(), "")
	csr := request(t, key)
	b, err := evidence.Collect(ctx, tpm, key.evidence(), csr, o)
	key.unload()
	if err != nil {
		t.Fatal(err)
	}
	r, err := evidence.Verify(copyOf(t, b), csr, v)
	if err != nil {
		t.Fatal(err)
	}
	challenge, pending, err := evidence.NewChallenge(r)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := evidence.Respond(ctx, tpm, challenge, evidence.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pending.Verify(answer); err != nil {
		t.Error(err)
	}
	return r
}

// Every kind of EK serves, found by its certificate.
func TestEKTemplates(t *testing.T) {
	t.Parallel()
	tpm := newLocalCA(t).newTPM(t)
	for name, template := range evidence.EKTemplates() {
		root, cert := ekCertificateFor(t, tpm, template)
		roots := x509.NewCertPool()
		roots.AddCert(root)
		r := prove(t, tpm, evidence.Options{EKCertificate: cert}, evidence.VerifyOptions{EKRoots: roots})
		ek, err := x509.ParseCertificate(cert)
		if err != nil {
			t.Fatal(err)
		}
		if fp, err := evidence.Fingerprint(ek.PublicKey); err != nil || string(fp) != string(r.EKFingerprint) {
			t.Errorf("%s: another key was taken: %v", name, err)
		}
	}
}

// A TPM whose maker certified no EK but a P-384 one of the high range: swtpm has
// one beside its RSA one.
func TestHighRangeAlone(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	tpm := ca.newTPM(t)
	index, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(0x01c00002)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.NVUndefineSpace{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)},
		NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(0x01c00002), Name: index.NVName}}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	r := prove(t, tpm, evidence.Options{}, ca.options(t))
	if r.EKCertificate == nil || r.EKCertificate.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("the EK is %v", r.EKCertificate)
	}
	// And when it has to be made.
	name, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010016)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHPlatform} {
		_, err = tpm2.EvictControl{Auth: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
			ObjectHandle: tpm2.NamedHandle{Handle: tpm2.TPMHandle(0x81010016), Name: name.Name}, PersistentHandle: tpm2.TPMHandle(0x81010016)}.Execute(tpm)
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	prove(t, tpm, evidence.Options{}, ca.options(t))
}

// A certificate whose key no EK could be.
func TestEKCertificateOfNoKind(t *testing.T) {
	t.Parallel()
	tpm := newLocalCA(t).newTPM(t)
	key := newKey(t, tpm, signing(), "")
	defer key.unload()
	_, cert := ekCertificateOf(t) // P-256, of no TPM
	_, err := evidence.Collect(ctx, tpm, key.evidence(), request(t, key), evidence.Options{EKCertificate: cert})
	if !errors.Is(err, evidence.ErrEKMismatch) {
		t.Error(err)
	}
}
