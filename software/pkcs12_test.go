package software_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

// A store is what goes into a PKCS#12 file: a key and a chain of three.
type store struct {
	dir   string
	key   crypto.PublicKey
	chain []*x509.Certificate
}

func newStore(t *testing.T) store {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	key, pub := genRSA(t)
	if err := os.Rename(key, in("leaf.key")); err != nil {
		t.Fatal(err)
	}
	ca, _ := genP256(t)
	openssl(t, "req", "-x509", "-new", "-key", ca, "-subj", "/CN=root", "-out", in("root.pem"))
	sub, _ := genP256(t)
	issue := func(key, ca, caKey, name string) {
		openssl(t, "req", "-new", "-key", key, "-subj", "/CN="+name, "-out", in("csr.pem"))
		openssl(t, "x509", "-req", "-in", in("csr.pem"), "-CA", ca, "-CAkey", caKey, "-CAcreateserial", "-out", in(name+".pem"))
	}
	issue(sub, in("root.pem"), ca, "sub")
	issue(in("leaf.key"), in("sub.pem"), sub, "leaf")
	s := store{dir: dir, key: pub}
	for _, name := range []string{"leaf", "sub", "root"} {
		cert, err := x509.ParseCertificate(pemToDER(t, read(t, in(name+".pem"))))
		if err != nil {
			t.Fatal(err)
		}
		s.chain = append(s.chain, cert)
	}
	if err := os.WriteFile(in("cas.pem"), append(read(t, in("sub.pem")), read(t, in("root.pem"))...), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s store) export(t *testing.T, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "store.p12")
	base := []string{"pkcs12", "-export", "-out", out, "-in", filepath.Join(s.dir, "leaf.pem"),
		"-certfile", filepath.Join(s.dir, "cas.pem"), "-name", "workload", "-provider", "default", "-provider", "legacy"}
	openssl(t, append(base, args...)...)
	return out
}

func (s store) check(t *testing.T, c *software.Contents) {
	t.Helper()
	if len(c.Keys) != 1 {
		t.Fatalf("%d keys", len(c.Keys))
	}
	checkSigns(t, c.Keys[0], s.key)
	s.checkChain(t, c.Certificates)
}

func (s store) checkChain(t *testing.T, certs []*x509.Certificate) {
	t.Helper()
	if len(certs) != len(s.chain) {
		t.Fatalf("%d certificates", len(certs))
	}
	for i, c := range certs {
		if !c.Equal(s.chain[i]) {
			t.Errorf("certificate %d is %s", i, c.Subject)
		}
	}
}

func TestPKCS12(t *testing.T) {
	s := newStore(t)
	key := []string{"-inkey", filepath.Join(s.dir, "leaf.key")}
	pass := []string{"-passout", "pass:" + passphrase}
	tests := map[string][]string{
		"modern":           {},
		"legacy":           {"-legacy"},
		"3DES":             {"-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"},
		"2DES and RC2-128": {"-keypbe", "PBE-SHA1-2DES", "-certpbe", "PBE-SHA1-RC2-128"},
		"AES-128":          {"-keypbe", "AES-128-CBC", "-certpbe", "AES-192-CBC", "-macalg", "sha512"},
		"SHA-224 MAC":      {"-macalg", "sha224"},
		"SHA-384 MAC":      {"-macalg", "sha384"},
		"no MAC":           {"-nomac"},
		"plain certs":      {"-certpbe", "NONE"},
		"plain key":        {"-keypbe", "NONE"},
		"one iteration":    {"-noiter", "-nomaciter"},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			path := s.export(t, append(append(args, key...), pass...)...)
			asked := 0
			c, err := software.ReadFile(t.Context(), path, with(passphrase, &asked))
			if err != nil {
				t.Fatal(err)
			}
			if asked != 1 {
				t.Errorf("asked %d times", asked)
			}
			s.check(t, c)
			certs, err := software.ReadCertificates(t.Context(), path, with(passphrase, nil))
			if err != nil {
				t.Fatal(err)
			}
			s.checkChain(t, certs)
			checkWrongPassphrase(t, path)
		})
	}
}

func TestPKCS12WithoutPassphrase(t *testing.T) {
	s := newStore(t)
	key := filepath.Join(s.dir, "leaf.key")
	for name, args := range map[string][]string{
		"empty":       {"-inkey", key, "-passout", "pass:"},
		"plain":       {"-inkey", key, "-passout", "pass:", "-keypbe", "NONE", "-certpbe", "NONE", "-nomac"},
		"empty, weak": {"-inkey", key, "-passout", "pass:", "-legacy"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := software.ReadFile(t.Context(), s.export(t, args...), software.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, c)
		})
	}
	// Certificates that are not encrypted are no secret.
	path := s.export(t, "-inkey", key, "-certpbe", "NONE", "-passout", "pass:"+passphrase)
	certs, err := software.ReadCertificates(t.Context(), path, software.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.checkChain(t, certs)
	// Certificates alone.
	path = s.export(t, "-nokeys", "-passout", "pass:"+passphrase)
	if certs, err = software.ReadCertificates(t.Context(), path, with(passphrase, nil)); err != nil {
		t.Fatal(err)
	}
	s.checkChain(t, certs)
	if _, err := software.ReadKey(t.Context(), path, with(passphrase, nil)); !errors.Is(err, signer.ErrKeyNotFound) {
		t.Errorf("error %v", err)
	}
}

// What another implementation writes.
func TestPKCS12Encoders(t *testing.T) {
	s := newStore(t)
	block, _ := pem.Decode(read(t, filepath.Join(s.dir, "leaf.key")))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*pkcs12.Encoder{
		"LegacyRC2": pkcs12.LegacyRC2, "LegacyDES": pkcs12.LegacyDES,
		"Modern2023": pkcs12.Modern2023, "Modern2026": pkcs12.Modern2026, "Passwordless": pkcs12.Passwordless,
	} {
		t.Run(name, func(t *testing.T) {
			pass := "pässword ☂"
			if name == "Passwordless" {
				pass = ""
			}
			data, err := e.Encode(key, s.chain[0], s.chain[1:], pass)
			if err != nil {
				t.Fatal(err)
			}
			c, err := software.Parse(t.Context(), "store.p12", data, with(pass, nil))
			if err != nil {
				t.Fatal(err)
			}
			s.check(t, c)
			data, err = e.EncodeTrustStore(s.chain, pass)
			if err != nil {
				t.Fatal(err)
			}
			if c, err = software.Parse(t.Context(), "trust.p12", data, with(pass, nil)); err != nil {
				t.Fatal(err)
			}
			s.checkChain(t, c.Certificates)
		})
	}
}

// BER as PKCS#12 writers make it: indefinite lengths and strings in pieces.
func TestPKCS12InBER(t *testing.T) {
	s := newStore(t)
	for _, mac := range [][]string{{}, {"-nomac"}} {
		path := s.export(t, append(mac, "-inkey", filepath.Join(s.dir, "leaf.key"), "-passout", "pass:"+passphrase)...)
		ber := software.ToBER(read(t, path))
		if bytes.Equal(ber, read(t, path)) {
			t.Fatal("still DER")
		}
		c, err := software.Parse(t.Context(), "store.p12", ber, with(passphrase, nil))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, c)
	}
}

// The key's certificate comes first, wherever it lies.
func TestPKCS12Order(t *testing.T) {
	s := newStore(t)
	key, err := x509.ParsePKCS8PrivateKey(pemToDER(t, read(t, filepath.Join(s.dir, "leaf.key"))))
	if err != nil {
		t.Fatal(err)
	}
	data, err := pkcs12.Modern.Encode(key, s.chain[2], []*x509.Certificate{s.chain[0], s.chain[1]}, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	c, err := software.Parse(t.Context(), "store.p12", data, with(passphrase, nil))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Certificates[0].Equal(s.chain[0]) {
		t.Errorf("first is %s", c.Certificates[0].Subject)
	}
}

// A flipped bit anywhere is an error or does no harm; it never panics.
func TestPKCS12Damaged(t *testing.T) {
	s := newStore(t)
	data := read(t, s.export(t, "-inkey", filepath.Join(s.dir, "leaf.key"), "-passout", "pass:"+passphrase, "-noiter", "-nomaciter"))
	for at := 0; at < len(data); at += 7 {
		bad := bytes.Clone(data)
		bad[at] ^= 0x10
		_, err := software.Parse(t.Context(), "store.p12", bad, with(passphrase, nil))
		if err == nil {
			continue // a friendlyName, say, outside what the MAC covers
		}
		checkError(t, err, "store.p12")
		for _, known := range []error{signer.ErrMalformed, signer.ErrPassphraseIncorrect, signer.ErrUnsupportedKey} {
			if errors.Is(err, known) {
				err = nil
				break
			}
		}
		if err != nil {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	if _, err := rand.Read(data[100:200]); err != nil {
		t.Fatal(err)
	}
	_, err := software.Parse(t.Context(), "store.p12", data, with(passphrase, nil))
	checkError(t, err, "store.p12")
}

func TestPKCS12Unsupported(t *testing.T) {
	s := newStore(t)
	path := s.export(t, "-inkey", filepath.Join(s.dir, "leaf.key"), "-keypbe", "PBE-SHA1-RC4-128", "-passout", "pass:"+passphrase)
	_, err := software.ReadFile(t.Context(), path, with(passphrase, nil))
	checkError(t, err, path)
	if !errors.Is(err, signer.ErrUnsupportedKey) || !strings.Contains(err.Error(), "RC4") || !strings.Contains(signer.Hint(err), "openssl pkcs12") {
		t.Errorf("error %v, hint %q", err, signer.Hint(err))
	}
}
