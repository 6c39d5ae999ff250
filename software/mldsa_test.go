package software_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

// The fixtures are OpenSSL's; scripts/make-key-fixtures.sh makes them.
func fixture(name string) string { return filepath.Join("..", "testdata", "software", "mldsa", name) }

func mldsaPublic(t *testing.T, size string) crypto.PublicKey {
	t.Helper()
	pub, err := signer.ParsePublicKey(pemToDER(t, read(t, fixture(size+"-public.pem"))))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestMLDSA(t *testing.T) {
	for _, test := range []struct{ size, file string }{
		{"44", "44-seed.pem"}, {"44", "44-expanded.pem"}, {"44", "44-both.pem"},
		{"65", "65-seed.pem"}, {"65", "65-expanded.pem"}, {"65", "65-both.pem"},
		{"87", "87-seed.pem"}, {"87", "87-expanded.pem"}, {"87", "87-both.pem"},
		{"44", "44-bare-seed.pem"}, {"44", "44-bare-expanded.pem"},
		{"65", "65-seed-pbkdf2.pem"}, {"87", "87-both-scrypt.pem"},
	} {
		t.Run(test.file, func(t *testing.T) {
			key, err := software.ReadKey(t.Context(), fixture(test.file), with("holdfast", nil))
			if err != nil {
				t.Fatal(err)
			}
			if got := signer.DescribeKey(key.Public()); got != "ML-DSA-"+test.size {
				t.Errorf("read %s", got)
			}
			checkSigns(t, key, mldsaPublic(t, test.size))
			sig, err := key.Sign(nil, []byte("holdfast"), crypto.Hash(0))
			if err != nil || !bytes.Equal(sig, read(t, fixture(test.size+"-signature.bin"))) {
				t.Errorf("not OpenSSL's signature (%v)", err)
			}
			if _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
				t.Error("signed a digest")
			}
			out, err := software.MarshalPrivateKey(key, signer.Secret{})
			if err != nil {
				t.Fatal(err)
			}
			want := "-seed.pem"
			if bytes.Contains([]byte(test.file), []byte("expanded")) {
				want = "-expanded.pem"
			}
			if !bytes.Equal(out, read(t, fixture(test.size+want))) {
				t.Errorf("not written as OpenSSL's %s%s", test.size, want)
			}
		})
	}
}

// Both halves of a "both" key must agree, and an expanded key with itself.
func TestInconsistentMLDSA(t *testing.T) {
	const prefix = 24 + 34 // to the seed's end in the "both" form, roughly
	for _, size := range []string{"44", "65", "87"} {
		both := pemToDER(t, read(t, fixture(size+"-both.pem")))
		expanded := pemToDER(t, read(t, fixture(size+"-expanded.pem")))
		tests := map[string][]byte{
			"seed":      flip(both, prefix-2),
			"both: rho": flip(both, prefix+10),
			"both: t0":  flip(both, len(both)-1),
			"rho":       flip(expanded, 30),
			"tr":        flip(expanded, 30+70),
			"s1":        flip(expanded, 30+128),
			"t0":        flip(expanded, len(expanded)-100),
			"cut short": expanded[:len(expanded)-1],
		}
		for name, data := range tests {
			t.Run(size+" "+name, func(t *testing.T) {
				_, err := software.Parse(t.Context(), "key.der", data, software.Options{})
				checkError(t, err, "key.der")
				if !errors.Is(err, signer.ErrMalformed) {
					t.Errorf("error %v", err)
				}
			})
		}
	}
}

func flip(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 1
	return data
}

func TestMLDSATruncated(t *testing.T) {
	for _, file := range []string{"44-seed.pem", "44-both.pem", "44-expanded.pem", "leaf.p12"} {
		data := read(t, fixture(file))
		for n := 0; n < len(data)-1; n += 16 {
			_, err := software.Parse(t.Context(), "short", data[:n], with("holdfast", nil))
			if checkError(t, err, "short"); !errors.Is(err, signer.ErrMalformed) {
				t.Fatalf("%s: %d bytes of %d: %v", file, n, len(data), err)
			}
		}
	}
}

func TestMLDSACertificates(t *testing.T) {
	chain, err := software.ReadCertificates(t.Context(), fixture("chain.pem"), software.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"leaf.p12", "leaf-pbmac1.p12"} {
		c, err := software.ReadFile(t.Context(), fixture(file), with("holdfast", nil))
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Certificates) != len(chain) {
			t.Fatalf("%d certificates", len(c.Certificates))
		}
		for i := range chain {
			if !c.Certificates[i].Equal(chain[i]) {
				t.Errorf("%s: certificate %d is %s", file, i, c.Certificates[i].Subject)
			}
		}
		id, err := signer.New(c.Keys[0], c.Certificates[0], c.Certificates[1:])
		if err != nil {
			t.Fatal(err)
		}
		if len(id.Chain()) != 1 || !id.Chain()[0].Equal(chain[1]) {
			t.Errorf("%s: chain of %d", file, len(id.Chain()))
		}
		checkSigns(t, id, id.Public())
		if _, err := software.ReadFile(t.Context(), fixture(file), with("wrong", nil)); !errors.Is(err, signer.ErrPassphraseIncorrect) {
			t.Errorf("%s: error %v", file, err)
		}
	}
	var der []byte
	for _, c := range chain {
		der = append(der, c.Raw...)
	}
	var got []*x509.Certificate
	if got, err = software.ReadCertificates(t.Context(), write(t, der), software.Options{}); err != nil || len(got) != 3 {
		t.Errorf("DER: %d certificates, %v", len(got), err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pemToDER(t, read(t, fixture("leaf-key.pem")))})
	if key, err := software.ReadKey(t.Context(), write(t, block), software.Options{}); err != nil {
		t.Error(err)
	} else if _, err := signer.New(key, chain[0], nil); err != nil {
		t.Error(err)
	}
}
