package pkcs11

import "errors"

// Errors of PKCS#11 backends that a caller may decide by, beside those of
// package signer.
var (
	// ErrModuleNotFound: no PKCS#11 module was named and none lies where they
	// usually do, or the named one does not exist.
	ErrModuleNotFound = errors.New("no PKCS#11 module found")

	// ErrModuleInvalid: the file is no PKCS#11 module for this program.
	ErrModuleInvalid = errors.New("not a usable PKCS#11 module")

	// ErrModuleFailed: the module is beyond what this process can mend. A
	// process that loads it afresh may succeed.
	ErrModuleFailed = errors.New("the PKCS#11 module has failed")

	// ErrExists: the object is there already and was left alone.
	ErrExists = errors.New("already exists")
)
