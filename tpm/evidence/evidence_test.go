package evidence_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

var ctx = context.Background()

func softwareKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// publicOf is the public area of a software key.
func publicOf(t *testing.T, key *ecdsa.PrivateKey, pub tpm2.TPMTPublic) tpm2.TPMTPublic {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	pub.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})
	return pub
}

func sensitiveOf(t *testing.T, key *ecdsa.PrivateKey) tpm2.TPMTSensitive {
	t.Helper()
	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.TPMTSensitive{SensitiveType: tpm2.TPMAlgECC,
		Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: d})}
}

func TestGoodBundle(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	tpm := ca.newTPM(t)
	for _, auth := range []string{"", "sesame"} {
		key := newKey(t, tpm, signing(), auth)
		csr := request(t, key)
		pcrs, err := policy.ParseSelection("sha256:0,7,16")
		if err != nil {
			t.Fatal(err)
		}
		o := evidence.Options{Nonce: []byte("a nonce"), PCRs: pcrs}
		b, err := evidence.Collect(ctx, tpm, key.evidence(), csr, o)
		if err != nil {
			t.Fatal(err)
		}
		if auth != "" {
			if _, err := evidence.Collect(ctx, tpm, evidence.Key{Handle: key.key.Handle}, csr, o); !errors.Is(err, signer.ErrPINIncorrect) {
				t.Errorf("without the key's auth value: %v", err)
			}
		}
		other := newKey(t, tpm, signing(), "")
		if _, err := evidence.Collect(ctx, tpm, other.evidence(), csr, o); !errors.Is(err, signer.ErrKeyMismatch) {
			t.Errorf("collecting for another request: %v", err)
		}
		other.unload()
		key.unload()
		b = copyOf(t, b)
		options := ca.options(t)
		options.Nonce = []byte("a nonce")
		r, err := evidence.Verify(b, csr, options)
		if err != nil {
			t.Fatal(err)
		}
		if r.Proven || !r.Fresh || r.Manufacturer != "id:00001014" || r.Model != "swtpm" || r.EKCertificate == nil || r.Firmware == 0 {
			t.Errorf("the result is %+v", r)
		}
		if b.TPM.Manufacturer != "IBM" || b.TPM.Revision == "" {
			t.Errorf("properties %+v", b.TPM)
		}
		if len(r.PCRs[tpm2.TPMAlgSHA256]) != 3 || !key.pub.(*ecdsa.PublicKey).Equal(r.PublicKey) {
			t.Errorf("PCRs %v, key %v", r.PCRs, r.PublicKey)
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
		_, another, err := evidence.NewChallenge(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := another.Verify(answer); !errors.Is(err, evidence.ErrAnswer) {
			t.Errorf("the answer to another challenge: %v", err)
		}
		options.Proven = []evidence.Binding{{}, pending.Binding}
		if r, err := evidence.Verify(b, csr, options); err != nil || !r.Proven {
			t.Errorf("with the AK known: %v", err)
		}

		sealed, err := evidence.Seal(r, []byte("a certificate"))
		if err != nil {
			t.Fatal(err)
		}
		data, err := sealed.Marshal()
		if err != nil || bytes.Contains(data, []byte("certificate")) {
			t.Errorf("%s, %v", data, err)
		}
		if sealed, err = evidence.ParseChallenge(data); err != nil {
			t.Fatal(err)
		}
		if got, err := evidence.Open(ctx, tpm, sealed, evidence.Options{}); err != nil || string(got) != "a certificate" {
			t.Errorf("opened %q, %v", got, err)
		}
		sealed.Sealed[0] ^= 1
		if _, err := evidence.Open(ctx, tpm, sealed, evidence.Options{}); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("changed: %v", err)
		}
		challenge.Credential[len(challenge.Credential)-1] ^= 1
		if _, err := evidence.Respond(ctx, tpm, challenge, evidence.Options{}); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("a changed challenge: %v", err)
		}
		if _, err := evidence.Open(ctx, tpm, challenge, evidence.Options{}); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("opening a challenge in which nothing is sealed: %v", err)
		}
	}
}

// Whoever has seen an EK certificate can make up the rest in software. It
// verifies, is not proven, and no challenge is answered.
func TestForgedInSoftware(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	tpm := ca.newTPM(t)
	key := newKey(t, tpm, signing(), "")
	seen := collect(t, tpm, key.evidence(), request(t, key), evidence.Options{})
	key.unload()

	ak, soft := softwareKey(t), softwareKey(t)
	csr := request(t, soft)
	pub := publicOf(t, soft, template(signing()))
	name, err := tpm2.ObjectName(&pub)
	if err != nil {
		t.Fatal(err)
	}
	akPublic := publicOf(t, ak, evidence.AKTemplate())
	attest := tpm2.Marshal(tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, ExtraData: tpm2.TPM2BData{Buffer: evidence.Qualifying(nil, csr)},
		QualifiedSigner: tpm2.TPM2BName{Buffer: qualifiedName(t, tpm2.TPMRHEndorsement, akPublic)},
		Attested:        tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: *name}),
	})
	digest := crypto.SHA256.New()
	digest.Write(attest)
	r, s, err := ecdsa.Sign(rand.Reader, ak, digest.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	forged := &evidence.Bundle{
		Version: evidence.Version, EK: seen.EK,
		AK: evidence.Attestation{Public: tpm2.Marshal(akPublic)},
		Key: evidence.Certified{Public: tpm2.Marshal(pub), Attest: attest, Signature: tpm2.Marshal(tpm2.TPMTSignature{
			SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
				Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()}})})},
	}
	options := ca.options(t)
	options.Proven = []evidence.Binding{{}, {EK: []byte("another"), AK: []byte("another")}}
	result, err := evidence.Verify(copyOf(t, forged), csr, options)
	if err != nil {
		t.Fatalf("a forged bundle no longer verifies; the documentation says it does: %v", err)
	}
	if result.Proven {
		t.Fatal("a forged bundle is taken for proof")
	}
	sealed, err := evidence.Seal(result, []byte("a certificate"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := evidence.Open(ctx, tpm, sealed, evidence.Options{}); !errors.Is(err, evidence.ErrOtherTPM) {
		t.Errorf("the TPM whose EK was taken opens it: %q, %v", got, err)
	}
	sealed.AK = mustAK(t, ca, tpm)
	if got, err := evidence.Open(ctx, tpm, sealed, evidence.Options{}); !errors.Is(err, signer.ErrMalformed) {
		t.Errorf("and when the AK's name is edited: %q, %v", got, err)
	}
}

// qualifiedName is a primary key's: part 1, clause 26.5.
func qualifiedName(t *testing.T, hierarchy tpm2.TPMHandle, pub tpm2.TPMTPublic) []byte {
	t.Helper()
	name, err := tpm2.ObjectName(&pub)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(hierarchy)), name.Buffer...))
	return append([]byte{0, 0x0b}, sum[:]...)
}

// mustAK returns the Name of a TPM's AK.
func mustAK(t *testing.T, ca *localCA, tpm transportTPM) []byte {
	t.Helper()
	key := newKey(t, tpm, signing(), "")
	defer key.unload()
	csr := request(t, key)
	r, err := evidence.Verify(collect(t, tpm, key.evidence(), csr, evidence.Options{}), csr, ca.options(t))
	if err != nil {
		t.Fatal(err)
	}
	return r.Binding.AK
}

func TestParse(t *testing.T) {
	for text, want := range map[string]error{
		"": signer.ErrMalformed, "[]": signer.ErrMalformed, "{}": evidence.ErrVersion, `{"version":2}`: evidence.ErrVersion,
		`{"version":2,"ek":5,"answer":5,"key":5}`: evidence.ErrVersion,
		`{"version":1,"ek":{"public":"?"}}`:       signer.ErrMalformed, `{"version":1}`: nil,
	} {
		if _, err := evidence.ParseBundle([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
		if text == `{"version":1,"ek":{"public":"?"}}` {
			continue
		}
		if want == nil {
			want = signer.ErrMalformed // a bundle is judged as a whole, by Verify; these are used as they are
		}
		if _, err := evidence.ParseChallenge([]byte(text)); !errors.Is(err, want) {
			t.Errorf("challenge %s: %v", text, err)
		}
		if _, err := evidence.ParseAnswer([]byte(text)); !errors.Is(err, want) {
			t.Errorf("answer %s: %v", text, err)
		}
		if _, err := evidence.ParsePending([]byte(text)); !errors.Is(err, want) {
			t.Errorf("pending %s: %v", text, err)
		}
	}
	if _, _, err := evidence.NewChallenge(&evidence.Result{}); err == nil {
		t.Error("a challenge for nobody")
	}
	if _, err := evidence.Verify(&evidence.Bundle{Version: 1}, request(t, softwareKey(t)), evidence.VerifyOptions{EKRoots: x509.NewCertPool()}); !errors.Is(err, signer.ErrMalformed) {
		t.Errorf("an empty bundle: %v", err)
	}
}
