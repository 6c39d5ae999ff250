package evidence

import "errors"

// Reasons for which a bundle is refused. A public key that is not the
// request's is [signer.ErrKeyMismatch], a damaged file [signer.ErrMalformed].
var (
	// ErrVersion: the bundle's version is not known.
	ErrVersion = errors.New("unknown version of evidence")

	// ErrRequest: the certificate request is damaged or not signed by its key.
	ErrRequest = errors.New("bad certificate request")

	// ErrNoEKCertificate: nobody certified the endorsement key.
	ErrNoEKCertificate = errors.New("no endorsement key certificate")

	// ErrEKUntrusted: the EK certificate does not lead to a root that is
	// trusted, or is no EK certificate.
	ErrEKUntrusted = errors.New("endorsement key certificate is not trusted")

	// ErrEKMismatch: the EK certificate is for another key than the bundle's.
	ErrEKMismatch = errors.New("endorsement key is not the certificate's")

	// ErrEKTemplate: the EK is not made by a default template.
	ErrEKTemplate = errors.New("not an endorsement key")

	// ErrAKAttributes: the AK could sign what is no statement of the TPM, or
	// could be elsewhere.
	ErrAKAttributes = errors.New("not an attestation key")

	// ErrNotGenerated: the signed statement was not made by a TPM.
	ErrNotGenerated = errors.New("statement was not made by a TPM")

	// ErrStatement: it is a statement on something else.
	ErrStatement = errors.New("another kind of TPM statement")

	// ErrSignature: the AK did not sign the statement.
	ErrSignature = errors.New("statement is not signed by the attestation key")

	// ErrNonce: the bundle was made with another nonce, or none.
	ErrNonce = errors.New("evidence is for another nonce")

	// ErrBinding: the statement was made for another certificate request or
	// another nonce.
	ErrBinding = errors.New("evidence is for another certificate request")

	// ErrKeyName: the certified key is not the bundle's.
	ErrKeyName = errors.New("another key was certified")

	// ErrKeyAttributes: the key may have been made outside the TPM, may leave
	// it, or does not sign.
	ErrKeyAttributes = errors.New("key is not bound to its TPM")

	// ErrQuote: the PCR values are not those quoted.
	ErrQuote = errors.New("PCR values are not those quoted")

	// ErrEndorsementAuth: the TPM's endorsement hierarchy has an auth value,
	// and [Options.Endorsement] does not prove it.
	ErrEndorsementAuth = errors.New("the endorsement hierarchy has a password")

	// ErrOtherTPM: the challenge is for another TPM, or for this one before
	// its endorsement seed was changed.
	ErrOtherTPM = errors.New("challenge is for another TPM")

	// ErrAnswer: the answer is not the challenge's.
	ErrAnswer = errors.New("wrong answer to the challenge")
)
