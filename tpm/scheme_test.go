package tpm_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

var hashes = []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}

// Every hash under every curve: a digest is cut to the curve or padded, whether
// or not the TPM knows its hash.
func TestDigestsAndCurves(t *testing.T) {
	_, d := start(t)
	for _, alg := range []tpm.Algorithm{tpm.P256, tpm.P384, tpm.P521} {
		k := openKey(t, d, create(t, d, tpm.CreateOptions{Algorithm: alg}), tpm.Options{})
		for _, h := range hashes {
			checkSignature(t, fmt.Sprint(alg, "/", h), k, h)
		}
	}
}

// A key may be bound to a hash that is longer or shorter than its curve.
func TestKeyOfOneHash(t *testing.T) {
	s, d := start(t)
	none := func(context.Context, string) (signer.Secret, error) { return signer.Secret{}, nil }
	srk := []string{"-C", "o", "-G", "ecc256:aes128cfb", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"}
	for _, c := range []struct {
		scheme string
		most   int // bytes of a digest it takes
	}{
		{"ecc256:ecdsa-sha256", 64}, {"ecc256:ecdsa-sha384", 64}, {"ecc256:ecdsa-sha512", 64},
		{"ecc384:ecdsa-sha256", 32}, {"ecc384:ecdsa-sha384", 64}, {"ecc384:ecdsa-sha512", 64},
		{"ecc521:ecdsa-sha512", 64}, {"ecc256:ecdsa-sha1", 20},
	} {
		f := toolsKey(t, s, srk, "-G", c.scheme+":null", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign")
		k := openKey(t, d, f, tpm.Options{Auth: none})
		for _, h := range hashes {
			if h.Size() <= c.most {
				checkSignature(t, fmt.Sprint(c.scheme, "/", h), k, h)
			} else if _, err := k.Sign(nil, make([]byte, h.Size()), h); !errors.Is(err, signer.ErrUnsupportedKey) {
				t.Errorf("%s/%v: %v", c.scheme, h, err)
			}
		}
	}
}

func checkSignature(t *testing.T, what string, k *tpm.Key, opts crypto.SignerOpts) {
	t.Helper()
	message := []byte("a message")
	sig, err := crypto.SignMessage(k, rand.Reader, message, opts)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if err := signer.Verify(k.Public(), message, sig, opts); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// PKCS#1 v1.5 without a DigestInfo, and what is no digest.
func TestOddDigests(t *testing.T) {
	s, d := start(t)
	k := openKey(t, d, both(t, s), tpm.Options{})
	pub := k.Public().(*rsa.PublicKey)
	for _, n := range []int{1, 20, 36, 245} {
		text := make([]byte, n)
		sig, err := k.Sign(nil, text, crypto.Hash(0))
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
		} else if err := rsa.VerifyPKCS1v15(pub, crypto.Hash(0), text, sig); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, bad := range []struct {
		n    int
		opts crypto.SignerOpts
	}{
		{246, crypto.Hash(0)}, {31, crypto.SHA256}, {33, crypto.SHA256}, {0, crypto.SHA256}, {32, crypto.Hash(99)}, {36, crypto.Hash(1 << 30)},
		{32, &rsa.PSSOptions{}}, {32, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 223}}, {32, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: -2}},
		{35, crypto.MD5SHA1},
	} {
		if _, err := k.Sign(nil, make([]byte, bad.n), bad.opts); err == nil {
			t.Errorf("%d bytes with %+v were signed", bad.n, bad.opts)
		}
	}
	ec := openKey(t, d, create(t, d, tpm.CreateOptions{}), tpm.Options{})
	for _, bad := range []crypto.SignerOpts{crypto.Hash(99), &rsa.PSSOptions{Hash: crypto.SHA256}} {
		if _, err := ec.Sign(nil, make([]byte, 32), bad); err == nil {
			t.Errorf("EC with %+v signed", bad)
		}
	}
	if _, err := ec.Sign(nil, nil, nil); err == nil {
		t.Error("nothing was signed")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// both makes an RSA key that signs and decrypts.
func both(t *testing.T, s *tpmtest.TPM) *tpm.KeyFile {
	t.Helper()
	f := toolsKey(t, s, []string{"-C", "o", "-G", "ecc256:aes128cfb", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"},
		"-G", "rsa2048", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign|decrypt")
	empty := true
	f.EmptyAuth = &empty
	return reparse(t, f)
}

// A tamperer changes what the TPM answers to one command.
type tamperer struct {
	transport.TPM
	at     tpm2.TPMCC
	change func([]byte) []byte
}

func (m *tamperer) Send(command []byte) ([]byte, error) {
	rsp, err := m.TPM.Send(command)
	if err == nil && m.change != nil && tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == m.at {
		rsp = m.change(rsp)
	}
	return rsp, err
}

// Something between us and the TPM answers in its place. What it does must not
// pass where a session protects the answer, and must not hurt where none does.
func TestTampering(t *testing.T) {
	for _, secret := range []string{"", longSecret} {
		s := tpmtest.Start(t)
		f := both(t, s)
		m := &tamperer{TPM: s}
		d := tpm.New(m, "tampered with")
		if secret != "" {
			f = create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret)), DA: true})
		}
		k := openKey(t, d, f, tpm.Options{Auth: password(secret, nil)})
		if err := sign(t, k); err != nil {
			t.Fatal(err)
		}
		m.at = tpm2.TPMCCSign
		digest := sha256.Sum256(nil)
		for i := 10; i < 140; i += 7 {
			m.change = func(rsp []byte) []byte {
				if i < len(rsp) {
					rsp[i] ^= 0x10
				}
				return rsp
			}
			sig, err := k.Sign(nil, digest[:], crypto.SHA256)
			if err == nil && secret != "" && !verifies(k.Public(), digest[:], sig) {
				t.Errorf("a change at byte %d passed", i)
			}
		}
		if secret == "" {
			m.at = tpm2.TPMCCRSADecrypt
			longer := make([]byte, 300)
			m.change = func([]byte) []byte {
				body := append(binary.BigEndian.AppendUint16(nil, uint16(len(longer))), longer...)
				rsp := binary.BigEndian.AppendUint32([]byte{0x80, 2}, uint32(10+4+len(body)+5))
				rsp = binary.BigEndian.AppendUint32(rsp, 0)
				rsp = append(binary.BigEndian.AppendUint32(rsp, uint32(len(body))), body...)
				return append(rsp, 0, 0, 1, 0, 0)
			}
			if _, err := k.Sign(nil, make([]byte, 36), crypto.Hash(0)); err == nil {
				t.Error("a signature longer than the key passed")
			}
		}
		m.change = nil
		if err := sign(t, k); err != nil {
			t.Errorf("when the TPM itself answers again: %v", err)
		}
		if l := lockout(t, d); l.Failed != 0 {
			t.Errorf("%d tries were burnt", l.Failed)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.CheckEmpty()
	}
}
