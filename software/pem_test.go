package software_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/software"
)

// bundle makes a key, its self-signed certificate and a second certificate.
func bundle(t *testing.T) (key, cert, other []byte) {
	t.Helper()
	path, _ := genP256(t)
	cert = openssl(t, "req", "-x509", "-new", "-key", path, "-subj", "/CN=one")
	other = openssl(t, "req", "-x509", "-new", "-key", path, "-subj", "/CN=two")
	return read(t, path), cert, other
}

func TestPEMLayouts(t *testing.T) {
	key, one, two := bundle(t)
	path := write(t, key)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	params := openssl(t, "ecparam", "-name", "prime256v1")
	public := openssl(t, "pkey", "-in", path, "-pubout")
	request := openssl(t, "req", "-new", "-key", path, "-subj", "/CN=one")
	traditional := openssl(t, "pkey", "-in", path, "-traditional")
	tests := map[string][]byte{
		"key first":           join(key, one, two),
		"key last":            join(one, two, key),
		"key between":         join(one, key, two),
		"text between":        join([]byte("Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n"), key, []byte("subject=CN = one\n\n-----\n"), one, []byte("# and\n"), two, []byte("end")),
		"CRLF":                bytes.ReplaceAll(join(key, one, two), []byte("\n"), []byte("\r\n")),
		"CR":                  bytes.ReplaceAll(join(key, one, two), []byte("\n"), []byte("\r")),
		"byte order mark":     join([]byte("\xef\xbb\xbf"), key, one, two),
		"trailing spaces":     bytes.ReplaceAll(join(key, one, two), []byte("\n"), []byte("  \t\n")),
		"indented":            bytes.ReplaceAll(join([]byte("\n"), key, one, two), []byte("\n"), []byte("\n    ")),
		"no last line end":    bytes.TrimSpace(join(key, one, two)),
		"parameters":          join(params, traditional, one, two),
		"public and request":  join(public, request, key, one, two),
		"the same key twice":  join(key, one, traditional, two),
		"wrong label":         join(bytes.ReplaceAll(traditional, []byte("EC PRIVATE"), []byte("PRIVATE")), one, two),
		"other wrong label":   join(bytes.ReplaceAll(key, []byte("PRIVATE"), []byte("RSA PRIVATE")), one, two),
		"old label":           join(key, bytes.ReplaceAll(one, []byte("CERT"), []byte("X509 CERT")), two),
		"trusted certificate": join(key, openssl(t, "x509", "-in", write(t, one), "-trustout", "-addtrust", "clientAuth"), two),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := software.Parse(t.Context(), "bundle.pem", data, software.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Keys) != 1 || len(c.Certificates) != 2 || len(c.Other) != 0 {
				t.Fatalf("%d keys, %d certificates, %d others", len(c.Keys), len(c.Certificates), len(c.Other))
			}
			if a, b := c.Certificates[0].Subject.CommonName, c.Certificates[1].Subject.CommonName; a != "one" || b != "two" {
				t.Errorf("certificates %s, %s", a, b)
			}
			checkSigns(t, c.Keys[0], c.Certificates[0].PublicKey)
		})
	}
}

func TestDamagedPEM(t *testing.T) {
	key, cert, _ := bundle(t)
	lines := bytes.SplitAfter(key, []byte("\n"))
	tests := []struct {
		name string
		data []byte
		text string
		want error
	}{
		{"empty", nil, "empty", signer.ErrMalformed},
		{"blank", []byte(" \n\n"), "empty", signer.ErrMalformed},
		{"text", []byte("hello"), "neither PEM", signer.ErrMalformed},
		{"UTF-16", []byte("\xff\xfe-\x00-\x00"), "UTF-16", signer.ErrMalformed},
		{"JKS", []byte("\xfe\xed\xfe\xed\x00\x00"), "JKS", signer.ErrUnsupportedKey},
		{"no END", bytes.Join(lines[:3], nil), "PRIVATE KEY at line 1: malformed: cut short", signer.ErrMalformed},
		{"no END before the next", append(bytes.Join(lines[:3], nil), cert...), "PRIVATE KEY at line 1: malformed: cut short", signer.ErrMalformed},
		{"second is cut", append(bytes.Clone(cert), lines[0]...), "PRIVATE KEY at line", signer.ErrMalformed},
		{"other END", bytes.Replace(key, []byte("END PRIVATE"), []byte("END PUBLIC"), 1), "not its END line", signer.ErrMalformed},
		{"BEGIN is cut", []byte("-----BEGIN PRIV"), "line 1", signer.ErrMalformed},
		{"base64", bytes.Replace(key, lines[1][:4], []byte("!!!!"), 1), "base64", signer.ErrMalformed},
		{"not DER", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "not DER", signer.ErrMalformed},
		{"no content", []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), "PRIVATE KEY", signer.ErrMalformed},
		{"OpenSSH", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"), "OpenSSH", signer.ErrUnsupportedKey},
		{"DSA", []byte("-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n"), "DSA", signer.ErrUnsupportedKey},
		{"certificate", []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), "CERTIFICATE at line 1", signer.ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := software.Parse(t.Context(), "key.pem", test.data, software.Options{})
			checkError(t, err, "key.pem")
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTPMKey(t *testing.T) {
	block := []byte("-----BEGIN TSS2 PRIVATE KEY-----\nMAgGBmeBBQoBAw==\n-----END TSS2 PRIVATE KEY-----\n")
	for name, data := range map[string][]byte{"PEM": block, "DER": pemToDER(t, block)} {
		c, err := software.Parse(t.Context(), "tpm.pem", data, software.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Other) != 1 || c.Other[0].Type != "TSS2 PRIVATE KEY" || !bytes.Equal(c.Other[0].Bytes, pemToDER(t, block)) {
			t.Errorf("%s: others %v", name, c.Other)
		}
	}
	path := write(t, block)
	_, err := software.ReadKey(t.Context(), path, software.Options{})
	checkError(t, err, path)
	if !errors.Is(err, signer.ErrKeyNotFound) || !strings.Contains(err.Error(), "TSS2") {
		t.Errorf("error %v", err)
	}
}

func TestReadKey(t *testing.T) {
	one, cert, _ := bundle(t)
	two, _, _ := bundle(t)
	path := write(t, append(one, two...))
	_, err := software.ReadKey(t.Context(), path, software.Options{})
	checkError(t, err, path)
	if err == nil || !strings.Contains(err.Error(), "2 different private keys") {
		t.Errorf("error %v", err)
	}
	path = write(t, cert)
	if _, err = software.ReadKey(t.Context(), path, software.Options{}); !errors.Is(err, signer.ErrKeyNotFound) {
		t.Errorf("error %v", err)
	}
	checkError(t, err, path)
	path = write(t, openssl(t, "pkey", "-in", write(t, one), "-pubout"))
	if _, err = software.ReadKey(t.Context(), path, software.Options{}); !errors.Is(err, signer.ErrKeyNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestReadCertificates(t *testing.T) {
	key, one, two := bundle(t)
	locked := filepath.Join(t.TempDir(), "locked.pem")
	openssl(t, "pkcs8", "-topk8", "-in", write(t, key), "-passout", "pass:x", "-out", locked)
	der := append(pemToDER(t, one), pemToDER(t, two)...)
	for name, data := range map[string][]byte{
		"PEM": bytes.Join([][]byte{read(t, locked), one, two}, nil),
		"DER": der,
	} {
		certs, err := software.ReadCertificates(t.Context(), write(t, data), software.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(certs) != 2 || certs[0].Subject.CommonName != "one" {
			t.Errorf("%s: %d certificates", name, len(certs))
		}
	}
	if _, err := software.ReadCertificates(t.Context(), locked, software.Options{}); !errors.Is(err, signer.ErrCertificateNotFound) {
		t.Errorf("error %v", err)
	}
	p7 := filepath.Join(t.TempDir(), "certs.p7b")
	openssl(t, "crl2pkcs7", "-nocrl", "-certfile", write(t, one), "-outform", "DER", "-out", p7)
	if _, err := software.ReadCertificates(t.Context(), p7, software.Options{}); err == nil || !strings.Contains(signer.Hint(err), "openssl pkcs7") {
		t.Errorf("error %v", err)
	}
	request := openssl(t, "req", "-new", "-key", write(t, key), "-subj", "/CN=one", "-outform", "DER")
	if _, err := software.ReadCertificates(t.Context(), write(t, request), software.Options{}); !errors.Is(err, signer.ErrCertificateNotFound) {
		t.Errorf("error %v", err)
	}
}
