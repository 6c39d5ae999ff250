// Package pkcs11 holds what a program needs to speak of PKCS#11 keys without
// loading a line of C: RFC 7512 URIs, the whereabouts of modules, and the
// descriptions of tokens and objects.
//
//	u, err := pkcs11.Parse("pkcs11:token=prod;object=web?pin-source=/run/pin")
//	path, err := pkcs11.FindModule(u, "")
//
// Keys are used through a backend. Package cryptoki loads a module into the
// calling process (it needs cgo); a module of unknown quality is better run in
// a process of its own.
//
// # URIs
//
// A [URI] keeps what it was given, attribute for attribute: values are bytes,
// "+" is a plus sign, an absent attribute differs from an empty one and
// slot-id=0 from none. [URI.String] is for people and hides the PIN;
// [URI.Exact] is for programs. Parsing what Exact printed gives the same URI,
// and printing what was parsed gives its canonical spelling.
//
// # Errors
//
// Errors wrap the sentinels of package signer and those of this package, name
// the object and hold no secret. Where a person can mend them, signer.Hint
// says how.
package pkcs11
