package wire

import (
	"context"
	"errors"
	"io/fs"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// kinds are the errors that keep their identity on the way; a kind's index is
// its bit.
var kinds = []error{
	signer.ErrKeyMismatch, signer.ErrKeyNotFound, signer.ErrCertificateNotFound, signer.ErrUnsupportedKey,
	signer.ErrMalformed, signer.ErrTokenNotFound, signer.ErrTokenGone, signer.ErrAmbiguous,
	signer.ErrPINRequired, signer.ErrPINIncorrect, signer.ErrPINLocked, signer.ErrPINFinalTry, signer.ErrPINExpired,
	pkcs11.ErrModuleNotFound, pkcs11.ErrModuleInvalid, pkcs11.ErrModuleFailed, pkcs11.ErrExists,
	errors.ErrUnsupported, fs.ErrNotExist, fs.ErrPermission, context.Canceled, context.DeadlineExceeded, ErrFrame,
}

// An Error is an error that has travelled: its text, its hint, and which
// sentinels of packages signer and pkcs11 it wraps.
type Error struct {
	bits uint64
	text string
	hint string
}

// NewError packs err for the way; nil for nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{text: err.Error(), hint: signer.Hint(err)}
	for i, kind := range kinds {
		if errors.Is(err, kind) {
			e.bits |= 1 << i
		}
	}
	return e
}

func (e *Error) Error() string { return e.text }

// Hint is for signer.Hint.
func (e *Error) Hint() string { return e.hint }

// Is makes errors.Is find the sentinels.
func (e *Error) Is(target error) bool {
	for i, kind := range kinds {
		if e.bits&(1<<i) != 0 && target == kind {
			return true
		}
	}
	return false
}

func (e *Error) code(c *Codec) {
	c.u64(&e.bits)
	c.string(&e.text)
	c.string(&e.hint)
}

// error carries an *Error that may be nil.
func (c *Codec) error(v **Error) {
	there := *v != nil
	if c.bool(&there); !there || c.err != nil {
		*v = nil
		return
	}
	if *v == nil {
		*v = new(Error)
	}
	(*v).code(c)
}
