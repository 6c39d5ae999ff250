package main

import (
	"context"
	"crypto"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// evidenceFlags say what evidence to make next to a request.
type evidenceFlags struct {
	out           string
	nonce         nonceFlag
	quote         string
	ekCertificate string
	endorsement   endorsementFlags
}

// nextToRequest is --evidence without a file.
const nextToRequest = "REQUEST" + evidenceSuffix

const evidenceSuffix = ".evidence.json"

func (e *evidenceFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&e.out, "evidence", "", "write the TPM's evidence of the key too, to a `file` named after an equals sign, or to that of --out with "+evidenceSuffix+" added to its name")
	fs.Lookup("evidence").NoOptDefVal = nextToRequest
	fs.Var(&e.nonce, "nonce", nonceHelp)
	fs.StringVar(&e.quote, "quote", "", "have the TPM quote these `PCRs` in the evidence: sha256:0,7")
	fs.StringVar(&e.ekCertificate, "ek-certificate", "", "`file` with the certificate of the TPM's endorsement key, if the TPM does not hold it")
	e.endorsement.add(fs)
}

// check returns where the evidence goes, "" for nowhere.
func (e *evidenceFlags) check(cmd *cobra.Command, request string) (path string, o evidence.Options, err error) {
	if !cmd.Flags().Changed("evidence") {
		for _, name := range []string{"nonce", "quote", "ek-certificate", "tpm-endorsement-auth"} {
			if cmd.Flags().Changed(name) {
				return "", o, usageError(cmd, fmt.Errorf("--%s is for --evidence", name))
			}
		}
		return "", o, nil
	}
	path = e.out
	switch {
	case path == nextToRequest && request == "":
		return "", o, usageError(cmd, errors.New("no place for the evidence: give --out, or --evidence=FILE"))
	case path == nextToRequest:
		path = request + evidenceSuffix
	case path == "":
		return "", o, usageError(cmd, errors.New("--evidence= names no file"))
	case path == request:
		return "", o, usageError(cmd, fmt.Errorf("--evidence and --out both name %s", path))
	}
	if e.quote != "" {
		if o.PCRs, err = policy.ParseSelection(e.quote); err != nil {
			return "", o, usageError(cmd, fmt.Errorf("--quote: %w", err))
		}
	}
	if o.Nonce, err = e.nonce.read(cmd.Context()); err != nil {
		return "", o, usageError(cmd, err)
	}
	if e.ekCertificate != "" {
		if o.EKCertificate, err = readCertificateDER(e.ekCertificate); err != nil {
			return "", o, identityError(err)
		}
	}
	return path, o, nil
}

// collect has the key's TPM make evidence of it.
func (e *evidenceFlags) collect(ctx context.Context, name string, key *tpm.Key, csr []byte, o evidence.Options) (b *evidence.Bundle, err error) {
	err = key.WithAdmin(ctx, func(l *tpm.Loaded) error {
		if o.Endorsement, err = e.endorsement.session(l.TPM); err != nil {
			return err
		}
		if b, err = evidence.Collect(ctx, l.TPM, evidence.Key{Handle: l.Auth.Handle, Auth: l.Auth.Auth}, csr, o); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	return b, identityError(e.endorsement.explain(err))
}

// writeWithEvidence writes a request and the evidence for it: both, or neither.
func (a *app) writeWithEvidence(ctx context.Context, name string, key crypto.Signer, r enroll.RequestOptions, out string, e *evidenceFlags, evidenceOut string, o evidence.Options) error {
	for _, path := range []string{out, evidenceOut} {
		if err := mustNotExist(path); err != nil {
			return err
		}
	}
	k, ok := key.(*tpm.Key)
	if !ok {
		return identityError(signer.WithHint(fmt.Errorf("%s: the key is not in a TPM, and nothing else makes evidence of where a key is", name),
			"leave --evidence out, or make a key in the TPM: holdfast key create"))
	}
	csr, err := enroll.NewRequest(key, r)
	if err != nil {
		return identityError(err)
	}
	b, err := e.collect(ctx, name, k, csr, o)
	if err != nil {
		return err
	}
	text, err := b.Marshal()
	if err != nil {
		return err
	}
	fingerprint, err := b.Fingerprint()
	if err != nil {
		return err
	}
	if err := a.writePublic(evidenceOut, text); err != nil {
		return err
	}
	if err := a.writePublic(out, requestPEM(csr)); err != nil {
		_ = os.Remove(evidenceOut) // of a request that nobody has
		return err
	}
	a.say.Say("evidence in %s; the TPM's endorsement key is %x", evidenceOut, fingerprint)
	if len(b.EK.Certificate) == 0 {
		a.say.Warn("the TPM holds no certificate of its endorsement key: give its maker's with --ek-certificate, or have the CA know the key by its fingerprint")
	}
	return nil
}

// endorsementFlags are for the TPM's endorsement hierarchy, whose password is
// usually empty.
type endorsementFlags struct{ auth term.Source }

func (e *endorsementFlags) add(fs *pflag.FlagSet) {
	e.auth.Noun, e.auth.Flag = "password", "--tpm-endorsement-auth"
	fs.Var(&e.auth, "tpm-endorsement-auth", "where the password of the TPM's endorsement hierarchy comes from (default: it has none)")
}

func (e *endorsementFlags) session(t transport.TPM) (tpm2.Session, error) {
	if !e.auth.Given() {
		return nil, nil
	}
	return tpm.HierarchySession(t, tpm2.TPMRHEndorsement, e.auth.Read)
}

func (e *endorsementFlags) explain(err error) error {
	if !errors.Is(err, evidence.ErrEndorsementAuth) {
		return err
	}
	if e.auth.Given() {
		return signer.WithHint(err, "check the password that --tpm-endorsement-auth leads to")
	}
	return signer.WithHint(err, "give its password with --tpm-endorsement-auth")
}

const nonceHelp = "the CA's `nonce` for this enrolment, in hexadecimal, or where that is: file:PATH, fd:NUMBER, env:NAME or credential:NAME; 8 to 64 bytes"

// nonceFlag is a nonce, or where to read it.
type nonceFlag struct {
	bytes []byte
	where term.Source
}

func (n *nonceFlag) Set(text string) error {
	n.where.Noun, n.where.Flag = "nonce", "--nonce"
	if text != "prompt" && strings.Contains(text, ":") {
		n.bytes = nil
		return n.where.Set(text)
	}
	b, err := parseNonce(text)
	n.bytes, n.where = b, term.Source{}
	return err
}

func (n *nonceFlag) String() string {
	if n.where.Given() {
		return n.where.String()
	}
	return hex.EncodeToString(n.bytes)
}

func (*nonceFlag) Type() string { return "nonce" }

func parseNonce(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) < 8 || len(b) > 64 {
		return nil, errors.New("a nonce is 8 to 64 bytes in hexadecimal, such as from: openssl rand -hex 32; file:PATH names a file with one")
	}
	return b, nil
}

// read returns the nonce, nil if the flag was not given.
func (n *nonceFlag) read(ctx context.Context) ([]byte, error) {
	if !n.where.Given() {
		return n.bytes, nil
	}
	text, err := n.where.Read(ctx, n.where.String())
	if err != nil {
		return nil, err
	}
	b, err := parseNonce(strings.TrimSpace(string(text.Reveal())))
	if err != nil {
		return nil, fmt.Errorf("--nonce %s: %w", &n.where, err)
	}
	return b, nil
}

// readCertificateDER returns the DER of the first certificate in a PEM file, or
// else what the file holds: EK certificates are not always such as parse.
func readCertificateDER(path string) ([]byte, error) {
	data, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return block.Bytes, nil
		}
	}
	return data, nil
}
