// Package policy reads, writes, computes and executes the policies that bind a
// TPM key: to the machine's boot state, to a password, to whatever a third
// party signs later.
//
//	p, err := policy.Parse(tpm2.TPMAlgSHA256, policyDER, authPolicyDER)
//	…
//	how, err := p.Execute(ctx, tpm, session, policy.Inputs{Signed: load})
//
// A [Policy] is the sequence of a TSS2 key file (draft-bottomley-tpm2-keys):
// steps run in order on a policy session. The steps known are [PCR],
// [AuthValue], [Secret], [Authorize], [Or] and [CommandCode]; any other is
// refused by name when the file is parsed, for a policy that is not executed
// whole can only fail, and one that is skipped would bind nothing.
//
// # Which policy to choose
//
//   - [PCR] binds a key to PCR values for ever. A firmware update ends the key.
//   - [Authorize] binds it to a public key. Whoever holds the private key
//     signs, with [SignPCRs], the PCR values that are good today, in systemd's
//     tpm2-pcr-signature.json; new firmware needs a new signature and the same
//     TPM key goes on.
//   - [AuthValue] after either of them asks for the key's password as well.
//   - [Or] takes one of up to eight policies.
//
// # How steps lie in a key file
//
// The draft says a step's body is the TPM command's; its reference program
// writes a PCR step as the policy hash has it: selection, then the bare digest.
// Both are read and the latter is written. An Authorize step holds the public
// key, the reference and a signature, which is empty where a signed policy is
// still to be found: among the key file's alternatives or in a signature file.
//
// The draft has no Or. Here, a policy that begins with one carries its branches
// as the key file's authPolicy, as a policy that begins with Authorize carries
// its signed policies there. Other programs refuse such a key by the command
// code and none misreads it.
//
// # Which PCR moved
//
// A policy holds only a digest over all its PCRs. To say which of them moved,
// the values the key was bound to are kept as a [Snapshot] in a JSON file next
// to the key file ([SnapshotPath]); the key file itself has no room that every
// reader tolerates. The snapshot is no secret and nothing trusts it: one that
// does not hash to the policy's digest is ignored.
package policy
