//go:build cgo

package cryptoki_test

import (
	"context"
	"crypto"
	"errors"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

// Some tokens take the PIN for one signature and say that there was no need.
// That is no reason not to sign.
func TestNeedlessPIN(t *testing.T) {
	for _, kind := range []string{"EC:secp256r1", "rsa:2048"} {
		t.Run(kind, func(t *testing.T) {
			s := newShim(t, "needless")
			onToken(t, "needless", "--keypairgen", "--key-type", kind, "--label", "k", "--id", "01", "--always-auth")
			o := options(nil)
			o.ReusePIN = true
			k := open(t, s.Module, "pkcs11:token=needless;object=k", nil, o)
			checkSigns(t, k)
			s.misbehave(t, "logged-in")
			checkSigns(t, k)
		})
	}
}

// Two keys have one name, and only a trial tells them apart. After the sessions
// were lost it is the same key that signs.
func TestTwinsAfterRecovery(t *testing.T) {
	newHSM(t, "twins")
	for range 2 {
		onToken(t, "twins", "--keypairgen", "--key-type", "EC:secp256r1", "--label", "k", "--id", "01")
	}
	m := load(t)
	all, err := m.List(t.Context(), uri(t, "pkcs11:token=twins"), options(nil))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	n := 0
	for _, info := range all[0].Keys {
		if info.Public == nil {
			continue
		}
		n++
		k := open(t, m, "pkcs11:token=twins;object=k", info.Public, options(nil))
		checkSigns(t, k)
		if err := p11.New(modulePath(t)).CloseAllSessions(uint(k.Token().SlotID)); err != nil {
			t.Fatal(err)
		}
		checkSigns(t, k)
	}
	if n != 2 {
		t.Errorf("%d public keys", n)
	}
}

// A signature that is longer than the key is none.
func TestLongSignature(t *testing.T) {
	s := newShim(t, "long")
	for _, kind := range []string{"ec-p256", "rsa-2048"} {
		s.misbehave(t, "")
		k := generate(t, s.Module, "pkcs11:token=long;object="+kind, kind, options(nil))
		s.misbehave(t, "long")
		sig, err := k.SignMessage(nil, []byte("x"), crypto.SHA256)
		if err == nil && signer.Verify(k.Public(), []byte("x"), sig, crypto.SHA256) != nil {
			t.Errorf("%s: %d bytes were passed on", kind, len(sig))
		}
		k.Close()
	}
}

// A token that fails does not hide the certificates of others.
func TestOneTokenFails(t *testing.T) {
	s := newShim(t, "first", "second")
	for _, token := range []string{"first", "second"} {
		k := generate(t, s.Module, "pkcs11:token="+token+";object=k", "ec-p256", options(nil))
		if _, err := s.ImportCertificate(t.Context(), k.URI(), issue(t, k, token), options(nil)); err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
	u := uri(t, "pkcs11:object=k")
	for words, want := range map[string]int{"": 2, "fail=C_FindObjectsInit:5:2": 1} {
		s.misbehave(t, words)
		certs, err := s.Certificates(t.Context(), u, cryptoki.Options{})
		if err != nil || len(certs) != want {
			t.Errorf("%q: %d certificates, %v", words, len(certs), err)
		}
	}
	s.misbehave(t, "fail=C_FindObjectsInit:5:9")
	_, err := s.Certificates(t.Context(), u, cryptoki.Options{})
	checkError(t, err, pkcs11.ErrModuleFailed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.OpenKey(ctx, u, nil, cryptoki.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
