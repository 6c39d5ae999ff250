package software

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/holdfast-iam/holdfast/signer"
)

type want uint8

const (
	wantKeys want = 1 << iota
	wantCertificates
)

// Bounds on what a file's key derivations may cost: maxIterations for one of
// them, some seconds of a CPU, and maxWork for all of a file's together.
const (
	maxIterations = 10_000_000
	maxWork       = 4 * maxIterations
)

// A parser reads one file. It knows what was asked for, and remembers the
// passphrase for the second object that needs it.
type parser struct {
	ctx  context.Context
	name string
	opts Options
	want want

	out    Contents
	sawKey bool // the file holds a private key, asked for or not; a TPM's is none that can be read

	asked  bool
	secret signer.Secret
	askErr error

	work  int // iterations of key derivation done
	limit int // on work; 0 means maxWork
}

func (p *parser) parse(data []byte) (*Contents, error) {
	if err := p.dispatch(data); err != nil {
		return nil, err
	}
	p.out.name = p.name
	return &p.out, nil
}

func (p *parser) dispatch(data []byte) error {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return fmt.Errorf("%s: %w: the file is empty", p.name, signer.ErrMalformed)
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return signer.WithHint(fmt.Errorf("%s: %w: text in UTF-16, where PEM is ASCII", p.name, signer.ErrMalformed),
			"save the file as UTF-8 or ASCII")
	case bytes.HasPrefix(data, []byte("\xfe\xed\xfe\xed")):
		return signer.WithHint(fmt.Errorf("%s: %w: a Java key store (JKS)", p.name, signer.ErrUnsupportedKey),
			"convert it: keytool -importkeystore -srckeystore "+shellQuote(p.name)+" -destkeystore key.p12 -deststoretype pkcs12")
	case looksLikePEM(data):
		return p.pem(data)
	}
	return p.der(data)
}

// at returns an error about an object in the file.
func (p *parser) at(object string, err error) error {
	if object == "" {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return fmt.Errorf("%s: %s: %w", p.name, object, err)
}

// passphrase asks for the passphrase, once.
func (p *parser) passphrase() ([]byte, error) {
	if p.asked {
		return p.secret.Reveal(), p.askErr
	}
	p.asked = true
	switch {
	case p.opts.Passphrase == nil:
		p.askErr = signer.WithHint(fmt.Errorf("encrypted: %w", signer.ErrPassphraseRequired),
			"say where the passphrase of "+p.name+" comes from")
	default:
		p.secret, p.askErr = p.opts.Passphrase(p.ctx, p.name)
	}
	return p.secret.Reveal(), p.askErr
}

// spend is called before n iterations of a key derivation are run, each about
// the cost of one HMAC.
func (p *parser) spend(n int) error {
	limit := p.limit
	if limit == 0 {
		limit = maxWork
	}
	if n < 0 || n > limit-p.work {
		return malformed("its key derivations cost more than %d iterations", limit)
	}
	p.work += n
	return p.ctx.Err()
}

// key reads a DER key, or a DER EncryptedPrivateKeyInfo (RFC 5958).
func (p *parser) key(object string, der []byte, encrypted bool) error {
	p.sawKey = true
	if p.want&wantKeys == 0 {
		return nil
	}
	key, err := p.openKey(der, encrypted)
	if err != nil {
		return p.at(object, p.keyHint(err))
	}
	p.addKey(key)
	return nil
}

func (p *parser) openKey(der []byte, encrypted bool) (crypto.Signer, error) {
	if !encrypted {
		return parsePrivateKey(der)
	}
	alg, ciphertext, err := parseEncrypted(der)
	if err != nil {
		return nil, err
	}
	pass, err := p.passphrase()
	if err != nil {
		return nil, err
	}
	return p.decryptKey(alg, ciphertext, newPassword(pass))
}

func (p *parser) decryptKey(alg algorithm, ciphertext []byte, pass password) (crypto.Signer, error) {
	plain, err := p.decrypt(alg, ciphertext, pass)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	if !isPrivateKey(plain) {
		return nil, errPassphrase
	}
	return parsePrivateKey(plain)
}

func (p *parser) addKey(key crypto.Signer) {
	for _, k := range p.out.Keys {
		if e, ok := k.(interface{ Equal(crypto.PrivateKey) bool }); ok && e.Equal(key) {
			return
		}
	}
	p.out.Keys = append(p.out.Keys, key)
}

func (p *parser) certificate(object string, der []byte) error {
	if p.want&wantCertificates == 0 {
		return nil
	}
	if err := p.addCertificate(der); err != nil {
		return p.at(object, err)
	}
	return nil
}

func (p *parser) addCertificate(der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return malformed("%s", reason(err))
	}
	p.out.Certificates = append(p.out.Certificates, cert)
	return nil
}

func (p *parser) other(kind string, der []byte) {
	p.out.Other = append(p.out.Other, &pem.Block{Type: kind, Bytes: der})
}

// keyHint adds, to errors about an encryption that holdfast lacks, the way
// round it.
func (p *parser) keyHint(err error) error {
	if signer.Hint(err) == "" && errors.Is(err, errEncryption) {
		return signer.WithHint(err, "encrypt it anew: openssl pkcs8 -topk8 -v2 aes-256-cbc -provider default -provider legacy -in "+
			shellQuote(p.name)+" -out new-key.pem")
	}
	return err
}

var (
	errPassphrase = fmt.Errorf("%w, or the file is damaged", signer.ErrPassphraseIncorrect)

	// errEncryption: encrypted in a way this package lacks.
	errEncryption = fmt.Errorf("%w encryption", signer.ErrUnsupportedKey)
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", signer.ErrMalformed, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", signer.ErrUnsupportedKey, fmt.Sprintf(format, args...))
}

// oneLine keeps control characters, from a path or a PEM header, out of
// messages.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

// shellQuote quotes a path for a command in a hint.
func shellQuote(s string) string {
	plain := s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:@%,", r)
	})
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
