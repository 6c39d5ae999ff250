package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/sign"
	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
)

func (a *app) signString() *cobra.Command {
	var f identityFlags
	digest, format := "SHA256", "json"
	cmd := &cobra.Command{
		Use:   "sign-string",
		Short: "Sign a fixed string, to try out a private key",
		Long: `Signs "AWS Roles Anywhere Credential Helper Signing Test" + "1" + SHA-256("IAM RA" +
public key) and prints the signature in hexadecimal. The public key is an
uncompressed EC point, a PKCS#1 DER RSA key or a raw ML-DSA key. The signature
is verified before it is printed.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			opts, err := parseDigest(digest)
			if err != nil {
				return usageError(cmd, err)
			}
			encode, err := signatureFormat(format)
			if err != nil {
				return usageError(cmd, err)
			}
			a.setDebug(f.debug)
			ref := signer.ParseReference(f.privateKey)
			if ref.IsZero() {
				ref = signer.ParseReference(f.certificate)
			}
			if ref.IsZero() {
				return usageError(cmd, errors.New("no key given: give --private-key"))
			}
			m, err := a.openKey(cmd.Context(), ref, nil, &f)
			if err != nil {
				return err
			}
			defer closeKey(m.key)
			sig, err := signTestString(m.key, opts)
			if err != nil {
				return identityError(err)
			}
			_, err = a.stdout.Write(encode(sig))
			return err
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&digest, "digest", digest, "SHA256, SHA384 or SHA512; ML-DSA keys take none")
	cmd.Flags().StringVar(&format, "format", format, "json, text or bin")
	return cmd
}

func parseDigest(name string) (crypto.Hash, error) {
	switch strings.ToUpper(name) {
	case "SHA256":
		return crypto.SHA256, nil
	case "SHA384":
		return crypto.SHA384, nil
	case "SHA512":
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("--digest %q is not SHA256, SHA384 or SHA512", name)
}

func signatureFormat(name string) (func(sig []byte) []byte, error) {
	switch strings.ToLower(name) {
	case "json":
		return func(sig []byte) []byte {
			doc, _ := json.Marshal(hex.EncodeToString(sig)) // a string cannot fail
			return append(doc, '\n')
		}, nil
	case "text":
		return func(sig []byte) []byte { return []byte(hex.EncodeToString(sig) + "\n") }, nil
	case "bin":
		return bytes.Clone, nil
	}
	return nil, fmt.Errorf("--format %q is not json, text or bin", name)
}

func signTestString(key crypto.Signer, hash crypto.Hash) ([]byte, error) {
	message, err := testString(key.Public())
	if err != nil {
		return nil, err
	}
	if _, ok := key.Public().(sign.PublicKey); ok {
		hash = 0
	}
	sig, err := crypto.SignMessage(key, nil, message, hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sig, signer.Verify(key.Public(), message, sig, hash)
}

func testString(pub crypto.PublicKey) ([]byte, error) {
	var raw []byte
	var err error
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		raw, err = k.Bytes()
	case *rsa.PublicKey:
		raw = x509.MarshalPKCS1PublicKey(k)
	case sign.PublicKey:
		raw, err = k.MarshalBinary()
	default:
		err = fmt.Errorf("%w: %s", signer.ErrUnsupportedKey, signer.DescribeKey(pub))
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("IAM RA"), raw...))
	return append([]byte("AWS Roles Anywhere Credential Helper Signing Test1"), sum[:]...), nil
}
