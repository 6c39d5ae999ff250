package evidence

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
)

// Respond answers a challenge. The error wraps [ErrOtherTPM] if it is not for
// this TPM. Only [Options.Endorsement] is looked at. At most two objects and
// one session are held in the TPM, and flushed before Respond returns.
func Respond(ctx context.Context, tpm transport.TPM, c *Challenge, o Options) (*Answer, error) {
	secret, err := activate(ctx, tpm, c, o)
	if err != nil {
		return nil, fmt.Errorf("TPM challenge: %w", err)
	}
	answer, err := derive(secret, answerLabel)
	if err != nil {
		return nil, err
	}
	return &Answer{Version: Version, Answer: answer}, nil
}

// Open returns what was sealed for this TPM with [Seal], on the terms of
// [Respond].
func Open(ctx context.Context, tpm transport.TPM, c *Challenge, o Options) ([]byte, error) {
	if len(c.Sealed) == 0 {
		return nil, malformed("TPM challenge: nothing is sealed in it")
	}
	secret, err := activate(ctx, tpm, c, o)
	if err != nil {
		return nil, fmt.Errorf("TPM challenge: %w", err)
	}
	aead, err := sealer(secret)
	if err != nil {
		return nil, err
	}
	data, err := aead.Open(nil, make([]byte, aead.NonceSize()), c.Sealed, c.bound())
	if err != nil {
		return nil, malformed("TPM challenge: what is sealed in it was changed")
	}
	return data, nil
}

// activate is TPM2_ActivateCredential. Its answer comes back encrypted to a
// session that is salted with the EK.
func activate(ctx context.Context, tpm transport.TPM, c *Challenge, o Options) (_ []byte, err error) {
	if err := checkVersion(c.Version); err != nil {
		return nil, err
	}
	if len(c.Credential) > maxCredential || len(c.Secret) > maxCredential {
		return nil, malformed("challenge: a credential of %d bytes with a secret of %d", len(c.Credential), len(c.Secret))
	}
	d := device{ctx, tpm, o}
	ak, akPub, err := d.createAK()
	if err != nil {
		return nil, err
	}
	defer func() { err = flushed(tpm, ak.Handle, err) }()
	if name, err := nameOf(akPub, "attestation key"); err != nil || string(name) != string(c.AK) {
		return nil, signer.WithHint(fmt.Errorf("%w: this TPM's attestation key is %x, the challenge's %x", ErrOtherTPM, name, c.AK),
			"answer it on the machine that the evidence was collected on")
	}
	ek, pub, transient, err := d.loadEK(c.EK)
	if err != nil {
		return nil, err
	}
	if transient {
		defer func() { err = flushed(tpm, ek.Handle, err) }()
	}
	session, done, err := d.ekSession(ek.Handle, pub)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := done(); e != nil && err == nil {
			err = fmt.Errorf("TPM2_FlushContext: %w", e)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := tpm2.ActivateCredential{
		ActivateHandle: ak,
		KeyHandle:      tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: session},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}
	rsp, err := cmd.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCIntegrity) || errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, tpm2.TPMRCSize) {
		return nil, malformed("challenge: the TPM refuses it: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_ActivateCredential: %w", err)
	}
	if len(rsp.CertInfo.Buffer) == 0 {
		return nil, malformed("challenge: its secret is empty")
	}
	return rsp.CertInfo.Buffer, nil
}

// ekSession authorizes the use of an EK, by the policy of its template or, for
// the high range, with its empty auth value. It encrypts what the TPM answers.
func (d *device) ekSession(ek tpm2.TPMHandle, pub tpm2.TPMTPublic) (_ tpm2.Session, done func() error, err error) {
	options := []tpm2.AuthOption{tpm2.Salted(ek, pub), tpm2.AESEncryption(128, tpm2.EncryptOut)}
	if pub.ObjectAttributes.UserWithAuth {
		session, done, err := tpm2.HMACSession(d.tpm, tpm2.TPMAlgSHA256, 16, append(options, tpm2.Auth(nil))...)
		if err != nil {
			return nil, nil, fmt.Errorf("starting a session: %w", err)
		}
		return session, done, nil
	}
	session, done, err := tpm2.PolicySession(d.tpm, tpm2.TPMAlgSHA256, 16, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("starting a session: %w", err)
	}
	if _, err = (tpm2.PolicySecret{AuthHandle: d.hierarchy(), PolicySession: session.Handle()}).Execute(d.tpm); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the endorsement hierarchy: %w", err), done())
	}
	return session, done, nil
}
