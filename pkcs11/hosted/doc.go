// Package hosted uses PKCS#11 keys through holdfast-pkcs11, a second program
// that loads the module. A module that hangs or crashes takes that program
// down and not this one: it is ended, started again, and the call made once
// more. This package has no cgo and the methods of package cryptoki.
//
//	host, err := hosted.Start(ctx, hosted.Config{Module: path})
//	defer host.Close()
//	key, certs, err := host.OpenIdentity(ctx, uri, nil, hosted.Options{PIN: ask})
//
// # Time
//
// Every call ends: at the caller's deadline, or when two attempts of
// [Config.CallTimeout] have failed. The time a person takes to type a PIN does
// not count.
//
// # PINs
//
// A PIN travels over the pipe to the host and in no other way. Once the token
// has taken it, it is kept here (and wiped by Close) to log a restarted host
// in again. One that the token refused is not presented again by this process;
// and not by the next for an hour, of which a note in [Config.StateDir] reminds
// it. A PIN given to a module that then hung or crashed may have been refused:
// it rests for a minute. The note holds 12 bits of a slow hash of the PIN, too
// few to find it by, so another PIN is tried at once. A correct login removes
// it.
//
// # The host
//
// holdfast-pkcs11 has its own session and process group, which is killed as a
// whole; it dies with this process, leaves no core file, and inherits three
// pipes and the environment variables that modules need, [Environment].
package hosted
