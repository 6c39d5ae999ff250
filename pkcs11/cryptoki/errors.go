//go:build cgo

package cryptoki

import (
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A CallError is what a function of the module returned. Errors of this
// package that come from the module wrap one.
type CallError struct {
	Call string // "C_Sign"
	Code uint   // CKR_…
}

// Error names the call and the return value: "C_Sign: CKR_DEVICE_ERROR".
func (e *CallError) Error() string {
	_, name, _ := strings.Cut(strings.TrimPrefix(p11.Error(e.Code).Error(), "pkcs11: "), ": ")
	if name == "" {
		name = fmt.Sprintf("return value 0x%X", e.Code)
	}
	return e.Call + ": " + name
}

// failed gives err, an error of package miekg/pkcs11, the name of its call.
func failed(call string, err error) error {
	var code p11.Error
	if errors.As(err, &code) {
		return &CallError{call, uint(code)}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	return nil
}

func returned(call string, rv uint) error {
	if rv == p11.CKR_OK {
		return nil
	}
	return &CallError{call, rv}
}

// codeOf returns the CKR_ that err comes from, or CKR_OK if it comes from none.
func codeOf(err error) uint {
	var e *CallError
	if errors.As(err, &e) {
		return e.Code
	}
	return p11.CKR_OK
}

// A failure is what to do about a return value.
type failure int

const (
	failPlain   failure = iota // nothing
	failHandle                 // find the object again
	failLogin                  // log in again
	failSession                // open another session; the old one is gone
	failDevice                 // try once more on another session
	failModule                 // this process is lost
)

// final is an error after which nothing is tried again: the token may have
// counted the PIN.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

func classify(err error) failure {
	if errors.As(err, new(final)) {
		return failPlain
	}
	switch codeOf(err) {
	case p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID:
		return failHandle
	case p11.CKR_USER_NOT_LOGGED_IN:
		return failLogin
	case p11.CKR_SESSION_CLOSED, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SLOT_ID_INVALID,
		p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED:
		return failSession
	case p11.CKR_DEVICE_ERROR, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED,
		p11.CKR_DEVICE_MEMORY, p11.CKR_HOST_MEMORY, p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED:
		return failDevice
	case p11.CKR_CRYPTOKI_NOT_INITIALIZED:
		return failModule
	}
	return failPlain
}

// lasting wraps an error that a second try did not mend.
func lasting(err error) error {
	switch classify(err) {
	case failModule, failDevice:
		return signer.WithHint(fmt.Errorf("%w: %w", pkcs11.ErrModuleFailed, err),
			"check the device, its service and its connection; then start the program again")
	case failSession:
		return signer.WithHint(fmt.Errorf("%w: %w", signer.ErrTokenGone, err),
			"put the token back and try again; `holdfast list` shows what is there")
	}
	return err
}

const listHint = "`holdfast list` shows the tokens, keys and certificates there are, with their URIs"

// list joins up to eight things a person may have meant.
func list(things []string) string {
	if len(things) == 0 {
		return "nothing"
	}
	const most = 8
	more := ""
	if n := len(things) - most; n > 0 {
		things, more = things[:most], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(things, ", ") + more
}
