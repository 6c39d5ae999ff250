package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/software"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

const evidenceExample = `At the CA, a nonce that makes the evidence fresh; on the device, request and
evidence; at the CA, a challenge that only the TPM in question can answer, and
nothing else that saw its certificate:

  CA      openssl rand -hex 32 > nonce
  device  holdfast csr --private-key device.tss2.pem --subject CN=device-17 --out device.csr --evidence --nonce file:nonce
  CA      holdfast csr challenge --csr device.csr --ek-ca tpm-maker.pem --nonce file:nonce --out challenge.json --pending pending.json
  device  holdfast csr answer --challenge challenge.json --out answer.json
  CA      holdfast csr verify --csr device.csr --ek-ca tpm-maker.pem --nonce file:nonce --pending pending.json --answer answer.json
  CA      holdfast ca sign --certificate ca.crt --private-key ca.key --csr device.csr --out device.crt

pending.json and answer.json are good for every later request of the same TPM.

Or without a question: the certificate goes out so that only that TPM opens it.
The CA does not learn whether it did, and must not publish the certificate.

  CA      holdfast ca sign --certificate ca.crt --private-key ca.key --csr device.csr --out device.crt
  CA      holdfast csr seal --csr device.csr --ek-ca tpm-maker.pem --nonce file:nonce --certificate device.crt --out device.crt.sealed
  device  holdfast csr open --sealed device.crt.sealed --out device.crt`

// verifyFlags say which evidence to check, and what to trust.
type verifyFlags struct {
	csr, evidence string
	ekCAs         []string
	fingerprints  []string
	nonce         nonceFlag
}

func (v *verifyFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&v.csr, "csr", "", "certificate signing request, PEM or DER: a `file`, or - for stdin")
	fs.StringVar(&v.evidence, "evidence", "", "`file` of the evidence (default: that of --csr with "+evidenceSuffix+" added to its name)")
	fs.StringArrayVar(&v.ekCAs, "ek-ca", nil, "`file` of CA certificates, roots or below, each trusted to certify the endorsement keys of genuine TPMs only (repeatable)")
	fs.StringArrayVar(&v.fingerprints, "ek-fingerprint", nil, "`SHA-256` in hexadecimal of the public key (SubjectPublicKeyInfo) of an endorsement key that is trusted without a certificate (repeatable)")
	fs.Var(&v.nonce, "nonce", nonceHelp)
}

// options are what the flags trust.
func (v *verifyFlags) options(cmd *cobra.Command) (o evidence.VerifyOptions, err error) {
	switch {
	case v.csr == "":
		return o, usageError(cmd, errors.New("no request given: give --csr"))
	case v.evidence == "" && v.csr == "-":
		return o, usageError(cmd, errors.New("no evidence given: give --evidence"))
	case len(v.ekCAs)+len(v.fingerprints) == 0:
		return o, usageError(cmd, signer.WithHint(errors.New("nobody is trusted to certify TPMs: give --ek-ca or --ek-fingerprint"),
			"the makers of TPMs publish the certificates of their CAs; holdfast csr --evidence prints the fingerprint"))
	}
	if o.Nonce, err = v.nonce.read(cmd.Context()); err != nil {
		return o, usageError(cmd, err)
	}
	for _, text := range v.fingerprints {
		fp, err := hex.DecodeString(text)
		if err != nil || len(fp) != 32 {
			return o, usageError(cmd, fmt.Errorf("--ek-fingerprint %q is no SHA-256 in hexadecimal", text))
		}
		o.EKs = append(o.EKs, fp)
	}
	o.EKRoots, err = readEKCAs(cmd.Context(), v.ekCAs)
	return o, err
}

func readEKCAs(ctx context.Context, files []string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, file := range files {
		certs, err := software.ReadCertificates(ctx, file, software.Options{})
		if err != nil {
			return nil, identityError(fmt.Errorf("--ek-ca: %w", err))
		}
		for _, c := range certs {
			if !c.IsCA {
				return nil, identityError(signer.WithHint(fmt.Errorf("--ek-ca: %s: the certificate of %q is not a CA's", file, c.Subject),
					"give those of the TPM maker's CAs; to trust a single TPM give --ek-fingerprint"))
			}
			pool.AddCert(c)
		}
	}
	return pool, nil
}

// A checked is a request with evidence that was found sound.
type checked struct {
	*evidence.Result
	request *x509.CertificateRequest
}

// verify reads request and evidence, and refuses what is not sound.
func (v *verifyFlags) verify(o evidence.VerifyOptions) (*checked, error) {
	text, err := readRequest(v.csr)
	if err != nil {
		return nil, identityError(err)
	}
	request, err := enroll.ParseRequest(text)
	if err != nil {
		return nil, identityError(fmt.Errorf("%s: %w", v.csr, err))
	}
	path := cmp.Or(v.evidence, v.csr+evidenceSuffix)
	b, err := readJSON(path, evidence.ParseBundle)
	if err != nil {
		return nil, err
	}
	r, err := evidence.Verify(b, request.Raw, o)
	if err != nil {
		return nil, identityError(fmt.Errorf("%s: %w", path, evidenceHint(err)))
	}
	return &checked{r, request}, nil
}

// evidenceHint says in flags what mends a refusal.
func evidenceHint(err error) error {
	for reason, hint := range map[error]string{
		evidence.ErrEKUntrusted:     "if TPMs of this maker are to be trusted, name the certificates of its CAs, root and below, with --ek-ca",
		evidence.ErrNoEKCertificate: "have the device give its certificate with --ek-certificate, or trust the key with --ek-fingerprint",
		evidence.ErrNonce:           "make request and evidence anew with this enrolment's nonce: holdfast csr --evidence --nonce",
		evidence.ErrBinding:         "request and evidence are made together: send both anew",
	} {
		if errors.Is(err, reason) {
			return signer.WithHint(err, hint)
		}
	}
	return err
}

func (a *app) csrVerify() *cobra.Command {
	var v verifyFlags
	var pending, answer string
	var unproven, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that a request's key lives in a genuine TPM and cannot leave it",
		Long: `Checks the evidence that came with a certificate signing request, and says what
it proves and what not.

Evidence alone proves nothing about hardware: whoever has seen the certificate of
a TPM's endorsement key can make up the rest in software. It takes the answer to
a challenge, which --pending and --answer bring. Without one the exit code is 3,
unless --allow-unproven says that the claim is enough, as before "csr seal".
Revocation of TPMs' certificates is not looked at.

` + evidenceExample,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (pending == "") != (answer == "") {
				return usageError(cmd, errors.New("--pending and --answer go together"))
			}
			o, err := v.options(cmd)
			if err != nil {
				return err
			}
			c, err := v.verifyAnswered(o, pending, answer)
			if err == nil && !c.Proven && !unproven {
				err = identityError(signer.WithHint(errNotProven, "ask the TPM (holdfast csr challenge), or send it the certificate sealed (holdfast csr seal)"))
			}
			if reported := a.report(c, err, asJSON); reported != nil {
				return reported
			}
			return err
		},
	}
	v.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&pending, "pending", "", "`file` that holdfast csr challenge kept")
	fs.StringVar(&answer, "answer", "", "`file` that holdfast csr answer made of the challenge")
	fs.BoolVar(&unproven, "allow-unproven", false, "be content with sound evidence that is not proven to be of a TPM")
	fs.BoolVar(&asJSON, "json", false, "print the result as JSON, a refusal too")
	return cmd
}

var errNotProven = errors.New("not proven: the evidence is sound, and could have been made up without a TPM")

// verifyAnswered is verify after a challenge was answered, if one was.
func (v *verifyFlags) verifyAnswered(o evidence.VerifyOptions, pending, answer string) (*checked, error) {
	if pending == "" {
		return v.verify(o)
	}
	p, err := readJSON(pending, evidence.ParsePending)
	if err != nil {
		return nil, err
	}
	got, err := readJSON(answer, evidence.ParseAnswer)
	if err != nil {
		return nil, err
	}
	if err := p.Verify(got); err != nil {
		return nil, identityError(signer.WithHint(fmt.Errorf("%s: %w", answer, err), "challenge the device again"))
	}
	o.Proven = append(o.Proven, p.Binding)
	c, err := v.verify(o)
	if err == nil && !c.Proven {
		return nil, identityError(signer.WithHint(fmt.Errorf("%s: the challenge was for another TPM, or another attestation key, than the evidence", pending),
			"challenge this one: holdfast csr challenge"))
	}
	return c, err
}

// readJSON reads what one of the other commands wrote.
func readJSON[T any](path string, parse func([]byte) (T, error)) (v T, err error) {
	data, err := readSmallFile(path)
	if err != nil {
		return v, identityError(err)
	}
	if v, err = parse(data); err != nil {
		return v, identityError(fmt.Errorf("%s: %w", path, err))
	}
	return v, nil
}

// report prints a verdict: in words if there is one, as JSON in any case.
func (a *app) report(c *checked, refused error, asJSON bool) error {
	if !asJSON {
		if c == nil {
			return nil
		}
		return c.print(a.stdout)
	}
	data, err := json.MarshalIndent(c.verdict(refused), "", "  ")
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(data, '\n'))
	return err
}
