// Package tpm signs with keys that live in a TPM 2.0: key files in the "TSS2
// PRIVATE KEY" format and persistent handles, on Linux devices, software TPMs
// behind sockets and Windows' TBS.
//
//	dev, err := tpm.Open(ctx, "") // TPM_DEVICE, else /dev/tpmrm0
//	file, err := tpm.ParseKeyFile(data)
//	key, err := tpm.OpenKey(ctx, dev, file, tpm.Options{Auth: ask})
//	sig, err := key.Sign(nil, digest, crypto.SHA256)
//
// A [Key] is a crypto.Signer and a crypto.MessageSigner. It is loaded when
// first used and stays loaded: a signature is then one TPM command. After a
// reset of the TPM it is loaded once more and the signature tried once more.
//
// # Sharing a TPM
//
// /dev/tpmrm0 and TBS have a resource manager, which gives every program its
// own slots. /dev/tpm0 and the sockets of software TPMs have three slots for
// everyone. There a [Device] takes a lock between processes, records what it
// loads in the lock file, gives the TPM up within a moment of its last use, and
// flushes what a process that was killed left behind. A program that ignores
// the lock, such as tpm2-tools, waits for the same moment at the socket.
//
// # Secrets
//
// An authorization value never travels: it keys the HMAC of a session whose
// own key is encrypted to the TPM (salted), and where it has to be handed over,
// at a key's creation, the session encrypts it. The Name of the key that
// sessions are salted to is pinned, see [Pins].
//
// # Dictionary attacks
//
// A wrong value for a key under the TPM's dictionary attack protection costs
// one of few tries, for all such keys together. Before such a value is
// presented the TPM's counters are read, and nothing is presented when one try
// is left (signer.ErrPINFinalTry) or none (signer.ErrPINLocked, with the time
// it lasts). A value that was wrong once is not presented again. A key file that
// says its key has no password is believed without a look at the counters: a
// right one costs nothing, a false one a try, once.
package tpm
