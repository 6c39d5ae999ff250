package software

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/holdfast-iam/holdfast/signer"
)

// fuzzParse reads data at a low cost of key derivation, and holds what comes
// out to the package's promises.
func fuzzParse(t *testing.T, data []byte) {
	p := &parser{
		ctx: context.Background(), name: "fuzz", want: wantKeys | wantCertificates, limit: 20_000,
		opts: Options{Passphrase: func(context.Context, string) (signer.Secret, error) {
			return signer.NewSecret([]byte("holdfast")), nil
		}},
	}
	start := time.Now()
	c, err := p.parse(data)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if err == nil {
		for _, k := range c.Keys {
			if signer.CheckSupported(k.Public()) != nil {
				t.Errorf("an unsupported key, %s", signer.DescribeKey(k.Public()))
			}
		}
		return
	}
	if strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("error of several lines: %q", err)
	}
	for _, known := range []error{signer.ErrMalformed, signer.ErrPassphraseIncorrect, signer.ErrUnsupportedKey} {
		if errors.Is(err, known) {
			return
		}
	}
	t.Errorf("unexpected error %v", err)
}

// seeds adds the fixtures, and what is in their PEM blocks, whole and wrapped.
func seeds(f *testing.F, add func(der []byte, text []byte)) {
	files, err := filepath.Glob("../testdata/software/mldsa/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no fixtures")
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if b, _ := pem.Decode(data); b != nil {
			add(b.Bytes, data)
		} else {
			add(data, nil)
		}
	}
	for _, algorithm := range []string{"ec-p256", "rsa-2048"} {
		key, err := Generate(algorithm)
		if err != nil {
			f.Fatal(err)
		}
		data, err := MarshalPrivateKey(key, signer.Secret{})
		if err != nil {
			f.Fatal(err)
		}
		b, _ := pem.Decode(data)
		add(b.Bytes, data)
	}
}

func FuzzParsePEM(f *testing.F) {
	seeds(f, func(_, text []byte) {
		if text != nil {
			f.Add(text)
		}
	})
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(fuzzParse)
}

func FuzzParsePKCS8(f *testing.F) {
	seeds(f, func(der, _ []byte) { f.Add(der) })
	f.Fuzz(fuzzParse)
}

func FuzzParsePKCS12(f *testing.F) {
	for _, name := range []string{"leaf.p12", "leaf-pbmac1.p12"} {
		data, err := os.ReadFile("../testdata/software/mldsa/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(ToBER(data))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		f.Fatal(err)
	}
	for e, pass := range map[*pkcs12.Encoder]string{
		pkcs12.LegacyRC2.WithIterations(1): "holdfast", pkcs12.Modern2026.WithIterations(1): "holdfast", pkcs12.Passwordless: "",
	} {
		data, err := e.Encode(key, cert, nil, pass)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(ToBER(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzParse(t, data)
		// Behind the MAC, which no fuzzer gets past.
		x := &pfx{parser: &parser{ctx: context.Background(), name: "fuzz", want: wantKeys | wantCertificates, limit: 20_000}}
		x.ready, x.pass = true, newPassword([]byte("holdfast"))
		data, _, ok := berToDER(data)
		if !ok {
			return
		}
		if safes, err := x.open(data); err == nil {
			_ = x.readSafes(safes)
			x.sortCertificates()
		}
	})
}
