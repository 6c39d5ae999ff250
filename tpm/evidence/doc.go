// Package evidence proves to a CA that a signing key lives in a genuine TPM and
// cannot leave it.
//
// The device collects a [Bundle] next to its certificate request:
//
//   - the endorsement key (EK), which the TPM's maker put in and certified;
//   - an attestation key (AK), which the TPM derives from its endorsement seed
//     and which signs nothing but the TPM's own statements;
//   - TPM2_Certify: the AK's statement on the signing key's public area, made
//     over the request and the CA's nonce;
//   - a quote of PCRs, if wanted.
//
// # What is proven, and when
//
// [Verify] checks everything a bundle holds against the request and the EK
// roots. That alone proves nothing about hardware. No TPM signs with its EK,
// so whoever has seen an EK certificate can put it in a bundle beside an AK
// and statements made up in software, and it will verify; [Result.Proven] is
// false. What a verified bundle does say is how the key would have to be made
// if the AK were that TPM's.
//
// The link is an encryption that only the TPM with that EK undoes, and only if
// that AK is loaded in it (TPM2_MakeCredential, TPM2_ActivateCredential). It
// takes one message to the device, in one of two forms:
//
//   - [Seal] encrypts what the device is waiting for anyway, its certificate.
//     The CA verifies the bundle, issues the certificate and sends it sealed;
//     [Open] gives it out on the right TPM and on no other. No step is added
//     to an ordinary enrolment and the CA keeps nothing. The CA does not learn
//     whether it was opened: a certificate that is published otherwise, say in
//     a log, is worth nothing to whoever lacks the key.
//   - [NewChallenge] and [Respond] are a question and an answer, for a CA that
//     wants to know before it issues. The [Pending] half stays with the CA; it
//     is no secret.
//
// An AK is the same as long as the TPM's endorsement seed is (TPM2_Clear does
// not change it, TPM2_ChangeEPS does). So a challenge is needed once for a
// device: with what an answer proved ([Pending.Binding]) in
// [VerifyOptions.Proven], later bundles, for new keys and renewals, are proof
// by themselves.
//
// With all of it done: the request's key was made by a TPM that the EK's CA
// vouches for, was never outside it, cannot be moved out or duplicated, signs
// only where that TPM is; the bundle was made for this request and, if the CA
// gave a nonce, after it. Not proven: that the TPM is in the machine one thinks
// of, that nobody else may use the key there, and (without a quote) what
// software runs. Whether a maker has revoked an EK certificate is not looked at. A
// TPM in software has an EK certificate too, from whoever
// runs it: the roots decide.
//
// # The bundle
//
// JSON, binary values in base64, TPM structures as the TPM marshals them:
//
//	{"version": 1,
//	 "nonce": …,                    the CA's, may be absent
//	 "ek":  {"public": TPMT_PUBLIC, "certificate": DER, "chain": [DER, …]},
//	 "ak":  {"public": TPMT_PUBLIC},
//	 "key": {"public": TPMT_PUBLIC, "attest": TPMS_ATTEST, "signature": TPMT_SIGNATURE},
//	 "quote": {"pcrs": {"version": 1, "pcrs": {"sha256": {"7": hex}}}, "selection": "sha256:7",
//	           "attest": TPMS_ATTEST, "signature": TPMT_SIGNATURE},
//	 "tpm": {"manufacturer": "IBM", "vendor": "SW   TPM", "firmware": …, "revision": "1.64"}}
//
// "tpm" is what the device says of itself and nobody signs. The statements are
// over [Qualifying], a hash of nonce and request.
//
// EKs are those of the TCG's templates: RSA 2048 (L-1) and ECC P-256 (L-2), and
// of the high range RSA 2048 and 3072 (H-1, H-6), ECC P-256 and P-384 (H-2, H-3).
// The AK is one of this package's own; a bundle with another is refused. Makers that keep EK certificates on a web site rather than in the TPM
// need [Options.EKCertificate]; a fleet without any can pin EKs by their
// fingerprints in [VerifyOptions.EKs].
package evidence
