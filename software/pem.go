package software

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

const (
	pemBegin = "-----BEGIN"
	pemEnd   = "-----END"
)

// looksLikePEM reports whether a line of data begins a PEM block.
func looksLikePEM(data []byte) bool {
	for at := 0; ; {
		i := bytes.Index(data[at:], []byte(pemBegin))
		if i < 0 {
			return false
		}
		at += i
		before := bytes.TrimRight(data[:at], " \t")
		if len(before) == 0 || bytes.HasSuffix(before, []byte("\n")) || bytes.HasSuffix(before, []byte("\r")) {
			return true
		}
		at += len(pemBegin)
	}
}

// pem reads every block of a PEM file. It finds the lines that frame a block
// itself: encoding/pem passes over a damaged block in silence.
func (p *parser) pem(data []byte) error {
	if !bytes.Contains(data, []byte("\n")) {
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	}
	var (
		block []byte // the lines of the block at hand, without their indentation
		kind  string
		start int
	)
	for number := 1; len(data) > 0; number++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		line = bytes.TrimSpace(line)
		switch {
		case bytes.HasPrefix(line, []byte(pemBegin)):
			if block != nil {
				return p.at(place(kind, start), malformed("cut short, its END line is missing"))
			}
			label, ok := pemLabel(line, pemBegin)
			if !ok {
				return p.at(fmt.Sprintf("line %d", number), malformed("a BEGIN line that is cut short or damaged"))
			}
			kind, start, block = label, number, []byte{}
		case block == nil:
			continue
		}
		block = append(append(block, line...), '\n')
		if !bytes.HasPrefix(line, []byte(pemEnd)) {
			continue
		}
		if label, ok := pemLabel(line, pemEnd); !ok || label != kind {
			return p.at(place(kind, start), malformed("line %d is not its END line", number))
		}
		b, _ := pem.Decode(block)
		if b == nil {
			return p.at(place(kind, start), malformed("its base64 text is damaged"))
		}
		if err := p.block(place(kind, start), b); err != nil {
			return err
		}
		block = nil
	}
	if block != nil {
		return p.at(place(kind, start), malformed("cut short, its END line is missing"))
	}
	return nil
}

// place names a block for people.
func place(kind string, line int) string {
	return fmt.Sprintf("%s at line %d", oneLine(kind), line)
}

func pemLabel(line []byte, prefix string) (string, bool) {
	s, ok := strings.CutSuffix(string(line), "-----")
	if !ok || len(s) <= len(prefix) || s[len(prefix)] != ' ' {
		return "", false
	}
	return s[len(prefix)+1:], true
}

func (p *parser) block(object string, b *pem.Block) error {
	switch b.Type {
	case "CERTIFICATE", "X509 CERTIFICATE":
		return p.certificate(object, b.Bytes)
	case "TRUSTED CERTIFICATE":
		// OpenSSL appends its trust settings.
		der, _, ok := element(b.Bytes)
		if !ok {
			return p.at(object, malformed("cut short"))
		}
		return p.certificate(object, der)
	case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST",
		"EC PARAMETERS", "DH PARAMETERS", "X9.42 DH PARAMETERS", "DSA PARAMETERS", "X509 CRL":
		return nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY":
		p.sawKey = true
		if p.want&wantKeys == 0 {
			return nil
		}
		return p.keyBlock(object, b)
	}
	p.sawKey = p.sawKey || strings.HasSuffix(b.Type, "PRIVATE KEY") && b.Type != tpmKey
	p.out.Other = append(p.out.Other, b)
	return nil
}

func (p *parser) keyBlock(object string, b *pem.Block) error {
	switch {
	case b.Type == "OPENSSH PRIVATE KEY":
		return signer.WithHint(p.at(object, unsupported("an OpenSSH key")),
			"convert a copy of it in place: ssh-keygen -p -m PKCS8 -f COPY")
	case b.Headers["DEK-Info"] != "" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
		return p.oldEncryptedBlock(object, b)
	case b.Type == "DSA PRIVATE KEY":
		return p.at(object, unsupported("DSA"))
	case b.Type == "ENCRYPTED PRIVATE KEY":
		return p.key(object, b.Bytes, true)
	}
	return p.key(object, b.Bytes, false)
}

// oldEncryptedBlock reads the encryption of RFC 1421 as OpenSSL has it: one
// MD5 turns passphrase and salt into the key, and nothing tells a wrong
// passphrase but the padding and what comes out.
func (p *parser) oldEncryptedBlock(object string, b *pem.Block) error {
	pass, err := p.passphrase()
	if err != nil {
		return p.at(object, err)
	}
	//lint:ignore SA1019 weak as it is, keys are still about that OpenSSL 1 encrypted so; holdfast does not write it
	plain, err := x509.DecryptPEMBlock(b, pass)
	wrong := x509.IncorrectPasswordError
	switch {
	case errors.Is(err, wrong):
		return p.at(object, errPassphrase)
	case err != nil && strings.Contains(err.Error(), "unknown encryption mode"):
		mode, _, _ := strings.Cut(b.Headers["DEK-Info"], ",")
		return p.at(object, p.keyHint(fmt.Errorf("%w: %s", errEncryption, oneLine(mode))))
	case err != nil:
		return p.at(object, malformed("%s", reason(err)))
	}
	defer clear(plain)
	if !isPrivateKey(plain) && b.Type != "DSA PRIVATE KEY" {
		return p.at(object, errPassphrase)
	}
	return p.key(object, plain, false)
}
