package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	ca, stranger := newLocalCA(t), newLocalCA(t)
	tpm, neighbour, foreign := ca.newTPM(t), ca.newTPM(t), stranger.newTPM(t)
	key := newKey(t, tpm, signing(), "")
	defer key.unload()
	csr := request(t, key)
	pcrs, err := policy.ParseSelection("16")
	if err != nil {
		t.Fatal(err)
	}
	o := evidence.Options{Nonce: []byte("a nonce"), PCRs: pcrs}
	good := collect(t, tpm, key.evidence(), csr, o)
	options := ca.options(t)
	options.Nonce = o.Nonce
	check := func(name string, b *evidence.Bundle, csr []byte, options evidence.VerifyOptions, want error) {
		t.Helper()
		r, err := evidence.Verify(b, csr, options)
		if !errors.Is(err, want) || r != nil {
			t.Errorf("%s: %v, want %v", name, err, want)
			return
		}
		t.Logf("%s: %v", name, err)
	}
	edit := func(name string, want error, change func(b *evidence.Bundle)) {
		t.Helper()
		b := copyOf(t, good)
		change(b)
		check(name, b, csr, options, want)
	}
	if _, err := evidence.Verify(good, csr, options); err != nil {
		t.Fatal(err)
	}

	// Other keys.
	other := newKey(t, tpm, signing(), "")
	otherCSR := request(t, other)
	check("another request", good, otherCSR, options, evidence.ErrBinding)
	check("another key for the request", collect(t, tpm, other.evidence(), csr, o), csr, options, signer.ErrKeyMismatch)
	edit("a swapped public area", evidence.ErrKeyName, func(b *evidence.Bundle) { b.Key.Public = collect(t, tpm, other.evidence(), csr, o).Key.Public })
	other.unload()

	soft := softwareKey(t)
	softCSR := request(t, soft)
	external := signing()
	external.FixedTPM, external.FixedParent, external.SensitiveDataOrigin = false, false, false
	softPublic := publicOf(t, soft, template(external))
	loaded, err := tpm2.LoadExternal{InPrivate: tpm2.New2B(sensitiveOf(t, soft)), InPublic: tpm2.New2B(softPublic), Hierarchy: tpm2.TPMRHNull}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	softEvidence := evidence.Key{Handle: loaded.ObjectHandle}
	if _, err := evidence.Collect(ctx, tpm, softEvidence, softCSR, o); !errors.Is(err, evidence.ErrKeyAttributes) || signer.Hint(err) == "" {
		t.Errorf("collecting for a software key: %v", err)
	}
	check("a software key", collect(t, tpm, softEvidence, softCSR, o), softCSR, options, evidence.ErrKeyAttributes)
	lying := collect(t, tpm, softEvidence, softCSR, o)
	lying.Key.Public = tpm2.Marshal(publicOf(t, soft, template(signing())))
	check("a software key that lies about it", lying, softCSR, options, evidence.ErrKeyName)
	flush(t, tpm, loaded.ObjectHandle)

	imported := importKey(t, tpm, soft, softPublic)
	check("an imported key", collect(t, tpm, imported.evidence(), softCSR, o), softCSR, options, evidence.ErrKeyAttributes)
	imported.unload()

	loose := signing()
	loose.FixedTPM, loose.FixedParent = false, false
	movable := newKey(t, tpm, loose, "")
	movableCSR := request(t, movable)
	check("a key that is not fixedTPM", collect(t, tpm, movable.evidence(), movableCSR, o), movableCSR, options, evidence.ErrKeyAttributes)
	movable.unload()

	// Other nonces.
	options.Nonce = []byte("another nonce")
	check("another nonce", good, csr, options, evidence.ErrNonce)
	options.Nonce = o.Nonce
	edit("an edited nonce", evidence.ErrNonce, func(b *evidence.Bundle) { b.Nonce = []byte("x") })
	withOther := collect(t, tpm, key.evidence(), csr, evidence.Options{Nonce: []byte("another nonce")})
	withOther.Nonce = o.Nonce
	check("another nonce under the right name", withOther, csr, options, evidence.ErrBinding)

	// Edited statements.
	edit("edited statement", evidence.ErrSignature, func(b *evidence.Bundle) { b.Key.Attest[len(b.Key.Attest)-1] ^= 1 })
	edit("edited clock", evidence.ErrSignature, func(b *evidence.Bundle) { b.Key.Attest[90] ^= 1 })
	edit("edited signature", evidence.ErrSignature, func(b *evidence.Bundle) { b.Key.Signature[len(b.Key.Signature)-1] ^= 1 })
	edit("no TPM's statement", evidence.ErrNotGenerated, func(b *evidence.Bundle) { b.Key.Attest[0] ^= 1 })
	edit("another kind of statement", evidence.ErrStatement, func(b *evidence.Bundle) { b.Key.Attest, b.Key.Signature = b.Quote.Attest, b.Quote.Signature })
	edit("edited PCR value", evidence.ErrQuote, func(b *evidence.Bundle) { b.Quote.PCRs.Values[tpm2.TPMAlgSHA256][16][0] ^= 1 })
	edit("another PCR selection", evidence.ErrQuote, func(b *evidence.Bundle) { b.Quote.Selection = "sha256:17" })
	edit("edited quote", evidence.ErrSignature, func(b *evidence.Bundle) { b.Quote.Attest[len(b.Quote.Attest)-1] ^= 1 })
	edit("a quote of another bundle", evidence.ErrBinding, func(b *evidence.Bundle) {
		b.Quote = collect(t, tpm, key.evidence(), csr, evidence.Options{PCRs: pcrs}).Quote
	})
	edit("cut", signer.ErrMalformed, func(b *evidence.Bundle) { b.Key.Public = b.Key.Public[:20] })
	edit("another version", evidence.ErrVersion, func(b *evidence.Bundle) { b.Version = 2 })
	check("a bad request", good, append(bytes.Clone(csr[:len(csr)-1]), csr[len(csr)-1]^1), options, evidence.ErrRequest)

	// Other attestation keys.
	edit("an AK that signs anything", evidence.ErrAKAttributes, func(b *evidence.Bundle) {
		ak := evidence.AKTemplate()
		ak.ObjectAttributes.Restricted = false
		b.AK.Public = tpm2.Marshal(publicOf(t, softwareKey(t), ak))
	})
	edit("another AK", evidence.ErrSignature, func(b *evidence.Bundle) {
		b.AK.Public = tpm2.Marshal(publicOf(t, softwareKey(t), evidence.AKTemplate()))
	})

	// Other endorsement keys.
	foreignKey := newKey(t, foreign, signing(), "")
	foreignCSR := request(t, foreignKey)
	abroad := collect(t, foreign, foreignKey.evidence(), foreignCSR, o)
	foreignKey.unload()
	check("an EK of another CA", abroad, foreignCSR, options, evidence.ErrEKUntrusted)
	check("no roots", good, csr, evidence.VerifyOptions{}, evidence.ErrEKUntrusted)
	edit("no EK certificate", evidence.ErrNoEKCertificate, func(b *evidence.Bundle) { b.EK.Certificate = nil })
	neighbourKey := newKey(t, neighbour, signing(), "")
	next := collect(t, neighbour, neighbourKey.evidence(), request(t, neighbourKey), o)
	neighbourKey.unload()
	edit("the certificate of another EK", evidence.ErrEKMismatch, func(b *evidence.Bundle) { b.EK.Certificate = next.EK.Certificate })
	edit("an EK that is none", evidence.ErrEKTemplate, func(b *evidence.Bundle) { b.EK.Public = b.Key.Public })
	edit("a CA's certificate for an EK's", evidence.ErrEKMismatch, func(b *evidence.Bundle) { b.EK.Certificate = certificate(t, ca.Issuer()).Raw })

	// With the EK of a genuine TPM of the same maker, a bundle verifies: that
	// is what challenges are for.
	mixed := copyOf(t, good)
	mixed.EK = next.EK
	own, err := evidence.Verify(good, csr, options)
	if err != nil {
		t.Fatal(err)
	}
	options.Proven = []evidence.Binding{own.Binding}
	r, err := evidence.Verify(mixed, csr, options)
	if err != nil || r.Proven {
		t.Fatalf("with another TPM's EK: %v", err)
	}
	challenge, _, err := evidence.NewChallenge(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Respond(ctx, tpm, challenge, evidence.Options{}); !errors.Is(err, evidence.ErrOtherTPM) {
		t.Errorf("the TPM of the key answers: %v", err)
	}
	if _, err := evidence.Respond(ctx, neighbour, challenge, evidence.Options{}); !errors.Is(err, evidence.ErrOtherTPM) {
		t.Errorf("the TPM of the EK answers: %v", err)
	}
}

// importKey makes the TPM take in a key of software.
func importKey(t *testing.T, tpm transportTPM, key *ecdsa.PrivateKey, pub tpm2.TPMTPublic) *tpmKey {
	t.Helper()
	srk := createSRK(t, tpm)
	defer flush(t, tpm, srk.ObjectHandle)
	parent, err := srk.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	to, err := tpm2.ImportEncapsulationKey(parent)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(&pub)
	if err != nil {
		t.Fatal(err)
	}
	duplicate, seed, err := tpm2.CreateDuplicate(rand.Reader, to, name.Buffer, tpm2.Marshal(sensitiveOf(t, key)))
	if err != nil {
		t.Fatal(err)
	}
	rsp, err := tpm2.Import{
		ParentHandle: tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name},
		ObjectPublic: tpm2.New2B(pub), Duplicate: tpm2.TPM2BPrivate{Buffer: duplicate}, InSymSeed: tpm2.TPM2BEncryptedSecret{Buffer: seed},
		Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, tpm, srk, tpm2.New2B(pub), rsp.OutPrivate, "")
}
