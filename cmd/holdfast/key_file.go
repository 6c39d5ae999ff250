package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// maxFileSize is more than any file of keys, values or certificates has.
const maxFileSize = 1 << 20

// readSmallFile reads a file that a person named.
func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSmall(f, path)
}

func readSmall(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFileSize {
		return nil, fmt.Errorf("%s: %w: larger than 1 MiB", name, signer.ErrMalformed)
	}
	return text, nil
}

// readPublicKey reads the file of a public key or a certificate, PEM or DER.
func readPublicKey(path string) (crypto.PublicKey, error) {
	text, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text) // a private key may have been named
	pub, err := parsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pub, nil
}

func parsePublicKey(text []byte) (crypto.PublicKey, error) {
	if !bytes.Contains(text, []byte("-----BEGIN ")) {
		if cert, err := x509.ParseCertificate(text); err == nil {
			return signer.PublicKey(cert)
		}
		return signer.ParsePublicKey(text)
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		switch {
		case b.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w certificate: %v", signer.ErrMalformed, err)
			}
			return signer.PublicKey(cert)
		case b.Type == "PUBLIC KEY":
			return signer.ParsePublicKey(b.Bytes)
		case b.Type == "RSA PUBLIC KEY":
			pub, err := x509.ParsePKCS1PublicKey(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%w public key: %v", signer.ErrMalformed, err)
			}
			return pub, nil
		case strings.HasSuffix(b.Type, "PRIVATE KEY"):
			return nil, signer.WithHint(errors.New("holds a private key, and only the public one should be here"),
				"write its public key to a file: holdfast key show --public-key --private-key KEY")
		}
	}
	return nil, fmt.Errorf("%w: no public key and no certificate in it", signer.ErrMalformed)
}
