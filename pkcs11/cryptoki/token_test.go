//go:build cgo

package cryptoki_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/signer"
)

// The private half of a key made here does not leave the token.
func TestPrivateKeyStays(t *testing.T) {
	newHSM(t, "stay")
	m := load(t)
	for _, algorithm := range []string{"ec-p256", "rsa-2048"} {
		k := generate(t, m, "pkcs11:token=stay;object="+algorithm, algorithm, options(nil))
		ctx := p11.New(modulePath(t))
		s, err := ctx.OpenSession(uint(k.Token().SlotID), p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		if err := ctx.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), p11.NewAttribute(p11.CKA_LABEL, algorithm)}); err != nil {
			t.Fatal(err)
		}
		found, _, err := ctx.FindObjects(s, 2)
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		if err := ctx.FindObjectsFinal(s); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []uint{p11.CKA_VALUE, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1} {
			if v, err := ctx.GetAttributeValue(s, found[0], []*p11.Attribute{p11.NewAttribute(kind, nil)}); err == nil && len(v[0].Value) > 0 {
				t.Errorf("%s: attribute %x was given away", algorithm, kind)
			}
		}
		wrapping, err := ctx.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_VALUE_LEN, 32), p11.NewAttribute(p11.CKA_WRAP, true), p11.NewAttribute(p11.CKA_TOKEN, false),
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ctx.WrapKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_WRAP_PAD, nil)}, wrapping, found[0])
		if err != p11.Error(p11.CKR_KEY_UNEXTRACTABLE) {
			t.Errorf("%s: C_WrapKey: %v", algorithm, err)
		}
		if err := ctx.DecryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}, found[0]); err == nil {
			t.Errorf("%s: it decrypts", algorithm)
		}
		if err := ctx.CloseSession(s); err != nil {
			t.Error(err)
		}
	}
}

// A token whose mechanisms hash by themselves serves SignMessage alone.
func TestTokenThatHashes(t *testing.T) {
	s := newShim(t, "hash")
	generate(t, s.Module, "pkcs11:token=hash;object=rsa", "rsa-2048", options(nil)).Close()
	s.misbehave(t, "no-digests")
	k := open(t, s.Module, "pkcs11:token=hash;object=rsa", nil, options(nil))
	digest := sha256.Sum256([]byte("x"))
	_, err := k.Sign(nil, digest[:], crypto.SHA256)
	checkError(t, err, nil, "messages, not digests")
	for _, o := range []crypto.SignerOpts{crypto.SHA256, crypto.SHA512, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}} {
		sig, err := k.SignMessage(nil, []byte("x"), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := signer.Verify(k.Public(), []byte("x"), sig, o); err != nil {
			t.Errorf("%v: %v", o, err)
		}
	}
}

func TestTokenThatReturnsDER(t *testing.T) {
	s := newShim(t, "der")
	k := generate(t, s.Module, "pkcs11:token=der;object=k", "ec-p256", options(nil))
	s.misbehave(t, "der")
	for range 50 {
		checkSigns(t, k)
	}
}

// An attribute that a token refuses hides no other.
func TestMissingAttributes(t *testing.T) {
	s := newShim(t, "attr")
	for _, algorithm := range []string{"ec-p256", "rsa-2048"} {
		generate(t, s.Module, "pkcs11:token=attr;id=%01;object="+algorithm, algorithm, options(nil)).Close()
	}
	for name, kind := range map[string]string{"always-authenticate": "202", "extractable": "162", "sign": "108", "public exponent": "122", "label": "3"} {
		t.Run(name, func(t *testing.T) {
			s.misbehave(t, "hide-attribute="+kind)
			for _, algorithm := range []string{"ec-p256", "rsa-2048"} {
				checkSigns(t, open(t, s.Module, "pkcs11:token=attr;object="+algorithm, nil, options(nil)))
			}
			all, err := s.List(t.Context(), uri(t, "pkcs11:token=attr"), options(nil))
			if err != nil || len(all) != 1 || len(all[0].Keys) != 2 || all[0].Err != nil {
				t.Errorf("%+v, %v", all, err)
			}
		})
	}
}
