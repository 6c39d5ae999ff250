package tpm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

var tpm2Provider = []string{"-provider", "tpm2", "-provider", "default"}

func genpkey(t *testing.T, s *tpmtest.TPM, args ...string) *tpm.KeyFile {
	t.Helper()
	path := filepath.Join(s.Dir(), "openssl.pem")
	s.Run(append(append([]string{"openssl", "genpkey", "-out", path}, tpm2Provider...), args...)...)
	return readKeyFile(t, path)
}

func TestKeysOfOpenSSL(t *testing.T) {
	s, d := start(t)
	for name, args := range map[string][]string{
		"P-256":    {"-algorithm", "EC", "-pkeyopt", "group:P-256"},
		"P-384":    {"-algorithm", "EC", "-pkeyopt", "group:P-384"},
		"RSA-2048": {"-algorithm", "RSA", "-pkeyopt", "bits:2048"},
	} {
		t.Run(name, func(t *testing.T) {
			checkSigns(t, openKey(t, d, genpkey(t, s, args...), tpm.Options{}))
		})
		t.Run(name+"/auth", func(t *testing.T) {
			f := genpkey(t, s, append(args, "-pkeyopt", "user-auth:open sesame")...)
			checkSigns(t, openKey(t, d, f, tpm.Options{Auth: password("open sesame", nil)}))
			if _, err := tpm.OpenKey(testContext(t), d, f, tpm.Options{}); !errors.Is(err, signer.ErrPINRequired) {
				t.Errorf("without a password: %v", err)
			}
		})
	}
	s.CheckEmpty()
}

// The provider takes the key's password from a passphrase prompt; an absent
// emptyAuth would make it present an empty one.
func TestOpenSSLUsesOurKeys(t *testing.T) {
	s, d := start(t)
	digest := filepath.Join(s.Dir(), "digest")
	if err := os.WriteFile(digest, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, alg := range []tpm.Algorithm{tpm.P256, tpm.P384, tpm.RSA2048} {
		for _, secret := range []string{"", "1234"} {
			t.Run(string(alg)+"/"+secret, func(t *testing.T) {
				f := create(t, d, tpm.CreateOptions{Algorithm: alg, Auth: signer.NewSecret([]byte(secret)), DA: true})
				key := writeKeyFile(t, s.Dir(), f)
				pass := []string{}
				if secret != "" {
					pass = []string{"-passin", "pass:" + secret}
				}
				req := append([]string{"openssl", "req", "-new", "-key", key, "-subj", "/CN=device", "-out", filepath.Join(s.Dir(), "req.pem")}, tpm2Provider...)
				s.Run(append(req, pass...)...)
				s.Run("openssl", "req", "-in", filepath.Join(s.Dir(), "req.pem"), "-verify", "-noout")
				sign := append([]string{"openssl", "pkeyutl", "-sign", "-inkey", key, "-in", digest, "-out", filepath.Join(s.Dir(), "sig")}, tpm2Provider...)
				if alg == tpm.RSA2048 {
					sign = append(sign, "-pkeyopt", "digest:sha256")
				}
				s.Run(append(sign, pass...)...)
			})
		}
	}
	if l := lockout(t, d); l.Failed != 0 {
		t.Errorf("%d lock-out tries were burnt", l.Failed)
	}
}

func lockout(t testing.TB, d *tpm.Device) tpm.Lockout {
	t.Helper()
	l, err := d.Lockout(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// toolsKey makes a key with tpm2-tools.
func toolsKey(t *testing.T, s *tpmtest.TPM, parent []string, args ...string) *tpm.KeyFile {
	t.Helper()
	s.Run(append([]string{"tpm2_createprimary", "-c", "p.ctx"}, parent...)...)
	s.Clear()
	s.Run(append([]string{"tpm2_create", "-C", "p.ctx", "-u", "k.pub", "-r", "k.priv"}, args...)...)
	s.Clear()
	_ = os.Remove(filepath.Join(s.Dir(), "tools.pem"))
	encode := []string{"tpm2_encodeobject", "-C", "p.ctx", "-u", "k.pub", "-r", "k.priv", "-o", "tools.pem"}
	s.Run(encode...)
	s.Clear()
	return readKeyFile(t, filepath.Join(s.Dir(), "tools.pem"))
}

func TestKeysOfTools(t *testing.T) {
	s, d := start(t)
	srk := []string{"-C", "o", "-G", "ecc256:aes128cfb", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"}
	none := func(context.Context, string) (signer.Secret, error) { return signer.Secret{}, nil }
	t.Run("standard parent", func(t *testing.T) {
		// tpm2_encodeobject says that there is a password; the user knows better.
		checkSigns(t, openKey(t, d, toolsKey(t, s, srk, "-G", "ecc256"), tpm.Options{Auth: none}))
	})
	t.Run("default parent", func(t *testing.T) {
		checkSigns(t, openKey(t, d, toolsKey(t, s, []string{"-C", "o", "-G", "ecc"}, "-G", "ecc256"), tpm.Options{Auth: none}))
	})
	t.Run("auth", func(t *testing.T) {
		f := toolsKey(t, s, srk, "-G", "ecc384", "-p", "open sesame")
		checkSigns(t, openKey(t, d, f, tpm.Options{Auth: password("open sesame", nil)}))
	})
	t.Run("RSA below RSA", func(t *testing.T) {
		f := toolsKey(t, s, []string{"-C", "o", "-G", "rsa2048:aes128cfb", "-a", srk[5]}, "-G", "rsa2048")
		f.RSAParent = true
		checkSigns(t, openKey(t, d, reparse(t, f), tpm.Options{Auth: none}))
	})
	t.Run("scheme of its own", func(t *testing.T) {
		k := openKey(t, d, toolsKey(t, s, srk, "-G", "rsa2048:rsapss-sha256:null", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"), tpm.Options{Auth: none})
		err := sign(t, k)
		if !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "RSAPSS") {
			t.Errorf("PKCS#1 with a key for PSS: %v", err)
		}
	})
	t.Run("restricted", func(t *testing.T) {
		s.Run("tpm2_create", "-C", "p.ctx", "-u", "k.pub", "-r", "k.priv", "-G", "ecc256:ecdsa-sha256:null", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign")
		s.Clear()
		s.Run("tpm2_encodeobject", "-C", "p.ctx", "-u", "k.pub", "-r", "k.priv", "-o", "restricted.pem")
		s.Clear()
		data, err := os.ReadFile(filepath.Join(s.Dir(), "restricted.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tpm.ParseKeyFile(data); !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "restricted") {
			t.Errorf("a restricted key: %v", err)
		}
	})
	s.CheckEmpty()
	if l := lockout(t, d); l.Failed != 0 {
		t.Errorf("%d lock-out tries were burnt", l.Failed)
	}
}

// An importable key is encrypted to the parent outside the TPM.
func TestImportable(t *testing.T) {
	s, d := start(t)
	s.Run("tpm2_createprimary", "-C", "o", "-G", "ecc256:aes128cfb", "-c", "p.ctx", "-f", "pem", "-o", "parent.pem",
		"-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")
	s.Run("tpm2_readpublic", "-c", "p.ctx", "-o", "parent.pub")
	s.Run("tpm2_flushcontext", "-t")
	area, err := os.ReadFile(filepath.Join(s.Dir(), "parent.pub"))
	if err != nil {
		t.Fatal(err)
	}
	parent, err := tpm2.Unmarshal[tpm2.TPMTPublic](area[2:])
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"", longSecret} {
		f, want := importable(t, parent, secret)
		checkSigns(t, openKey(t, d, reparse(t, f), tpm.Options{Auth: password(secret, nil)}))
		k := openKey(t, d, f, tpm.Options{Auth: password(secret, nil)}) // as it is, without its file
		checkSigns(t, k)
		if !want.Equal(k.Public()) {
			t.Error("another public key")
		}
	}
	s.CheckEmpty()
}

// importable makes a key in software and wraps it for the parent.
func importable(t *testing.T, parent *tpm2.TPMTPublic, secret string) (*tpm.KeyFile, *ecdsa.PublicKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, SignEncrypt: true, NoDA: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]},
		}),
	}
	name, err := tpm2.ObjectName(&public)
	if err != nil {
		t.Fatal(err)
	}
	sensitive := tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgECC, AuthValue: tpm2.TPM2BAuth{Buffer: []byte(secret)},
		Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: d}),
	}
	encap, err := tpm2.ImportEncapsulationKey(parent)
	if err != nil {
		t.Fatal(err)
	}
	dup, seed, err := tpm2.CreateDuplicate(rand.Reader, encap, name.Buffer, tpm2.Marshal(sensitive))
	if err != nil {
		t.Fatal(err)
	}
	empty := secret == ""
	f := &tpm.KeyFile{
		Importable: true, EmptyAuth: &empty, Secret: seed, Parent: tpm2.TPMRHOwner, Public: public, Private: dup,
	}
	return f, &key.PublicKey
}

// Keys below a persistent parent with a password, in an owner hierarchy with
// one.
func TestParentAndOwnerAuth(t *testing.T) {
	s, d := start(t)
	s.Run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "p.ctx", "-p", "parent secret")
	s.Run("tpm2_evictcontrol", "-C", "o", "-c", "p.ctx", "0x81000020")
	s.Clear()
	s.Run("tpm2_changeauth", "-c", "o", "owner secret")
	parent, owner := password("parent secret", nil), password("owner secret", nil)

	f := create(t, d, tpm.CreateOptions{Parent: 0x81000020, ParentAuth: parent, Auth: signer.NewSecret([]byte(longSecret))})
	checkSigns(t, openKey(t, d, f, tpm.Options{ParentAuth: parent, Auth: password(longSecret, nil)}))
	if err := sign(t, openKey(t, d, f, tpm.Options{Auth: password(longSecret, nil)})); !errors.Is(err, signer.ErrPINRequired) || !strings.Contains(err.Error(), "parent") {
		t.Errorf("without the parent's password: %v", err)
	}

	f = create(t, d, tpm.CreateOptions{OwnerAuth: owner, Persistent: 0x81000021})
	checkSigns(t, openKey(t, d, f, tpm.Options{OwnerAuth: owner}))
	checkSigns(t, openHandle(t, d, "handle:81000021", tpm.Options{}))
	if err := sign(t, openKey(t, d, f, tpm.Options{})); !errors.Is(err, signer.ErrPINRequired) || !strings.Contains(err.Error(), "owner") {
		t.Errorf("without the owner's password: %v", err)
	}
	if err := sign(t, openKey(t, d, f, tpm.Options{OwnerAuth: password("guess", nil)})); !errors.Is(err, signer.ErrPINIncorrect) {
		t.Errorf("with a wrong owner's password: %v", err)
	}
	s.CheckEmpty()
}

// The formats that writers have used.
func TestDialects(t *testing.T) {
	s, d := start(t)
	f := create(t, d, tpm.CreateOptions{})
	data, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(mustPEM(t, f))
	if b == nil || b.Type != "TSS2 PRIVATE KEY" {
		t.Fatal("not the PEM block it should be")
	}
	for name, change := range dialects {
		t.Run(name, func(t *testing.T) {
			f, err := tpm.ParseKeyFile(change(data))
			if err != nil {
				t.Fatal(err)
			}
			if err := sign(t, openKey(t, d, f, tpm.Options{})); err != nil {
				t.Error(err)
			}
		})
	}
	s.CheckEmpty()
}

func mustPEM(t testing.TB, f *tpm.KeyFile) []byte {
	t.Helper()
	data, err := f.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
