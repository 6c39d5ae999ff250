package software

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// tpmKey is the PEM type of a key that only a TPM can use.
const tpmKey = "TSS2 PRIVATE KEY"

// Options say how to read a file. The zero value reads what is not encrypted.
type Options struct {
	// Passphrase returns the passphrase of object, the name of the file. It is
	// called at most once for a file, and only if something in it that was
	// asked for is encrypted. The Secret stays the caller's, who may wipe it
	// when the file has been read. If Passphrase is nil, an encrypted object
	// is an error that wraps signer.ErrPassphraseRequired.
	Passphrase func(ctx context.Context, object string) (signer.Secret, error)

	// Warn is told, in one line, of a private key that others may read. It may
	// be nil.
	Warn func(message string)
}

// Contents are what a file holds.
type Contents struct {
	// Keys are the private keys in the file's order, equal ones once.
	Keys []crypto.Signer

	// Certificates are in the file's order, but for PKCS#12, which has none:
	// there the certificate of the first key comes first.
	Certificates []*x509.Certificate

	// Other are the PEM blocks that this package does not read, such as
	// "TSS2 PRIVATE KEY", a TPM's. A DER file of that type is here too, as
	// such a block. Public keys, requests, parameters and revocation lists
	// are left out.
	Other []*pem.Block

	name string // of the file, for errors
}

// Key returns the only private key. Its errors are those of [ReadKey].
func (c *Contents) Key() (crypto.Signer, error) {
	switch {
	case len(c.Keys) == 1:
		return c.Keys[0], nil
	case len(c.Keys) > 1:
		var names []string
		for _, k := range c.Keys {
			names = append(names, signer.DescribeKey(k.Public()))
		}
		return nil, signer.WithHint(
			fmt.Errorf("%s: holds %d different private keys (%s), and one is needed", c.name, len(names), strings.Join(names, ", ")),
			"put the key to use into a file of its own")
	case len(c.Other) > 0:
		return nil, fmt.Errorf("%s: %w, but a %s block", c.name, signer.ErrKeyNotFound, oneLine(c.Other[0].Type))
	}
	return nil, fmt.Errorf("%s: %w in it", c.name, signer.ErrKeyNotFound)
}

// Parse reads data; name stands for it in errors and is what
// Options.Passphrase is asked for. It returns an error if any key or
// certificate in data cannot be read, and empty Contents if there is none.
func Parse(ctx context.Context, name string, data []byte, opts Options) (*Contents, error) {
	p := &parser{ctx: ctx, name: oneLine(name), opts: opts, want: wantKeys | wantCertificates}
	return p.parse(data)
}

// ReadFile reads all that a file holds. The path may name a pipe, such as
// /dev/fd/63: it is read once. See [Parse] for the errors.
func ReadFile(ctx context.Context, path string, opts Options) (*Contents, error) {
	return read(ctx, path, opts, wantKeys|wantCertificates)
}

// ReadKey reads a file's only private key. It returns an error that wraps
// signer.ErrKeyNotFound if there is none, and an error if there are several
// different ones. Certificates in the file are not looked at.
func ReadKey(ctx context.Context, path string, opts Options) (crypto.Signer, error) {
	c, err := read(ctx, path, opts, wantKeys)
	if err != nil {
		return nil, err
	}
	return c.Key()
}

// ReadCertificates reads a file's certificates. It returns an error that wraps
// signer.ErrCertificateNotFound if there is none. Private keys in the file are
// not decrypted; only a PKCS#12 file whose certificates are encrypted makes it
// ask for a passphrase.
func ReadCertificates(ctx context.Context, path string, opts Options) ([]*x509.Certificate, error) {
	c, err := read(ctx, path, opts, wantCertificates)
	if err != nil {
		return nil, err
	}
	if len(c.Certificates) == 0 {
		return nil, fmt.Errorf("%s: %w in it", oneLine(path), signer.ErrCertificateNotFound)
	}
	return c.Certificates, nil
}

func read(ctx context.Context, path string, opts Options, w want) (*Contents, error) {
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	p := &parser{ctx: ctx, name: oneLine(path), opts: opts, want: w}
	c, err := p.parse(data)
	if p.sawKey && w&wantKeys != 0 && opts.Warn != nil {
		if message := exposed(path, info); message != "" {
			opts.Warn(message)
		}
	}
	return c, err
}
