package main

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitIdentity = 3
	exitRefused  = 4
	exitPassing  = 5
)

const exitCodesHelp = `Exit codes:
  0  success
  1  unexpected failure
  2  wrong usage: a flag, an argument, an ARN, a region
  3  the identity cannot be used: key or certificate missing, unreadable,
     damaged, expired, not fitting each other, or its passphrase, password or
     PIN is wrong
  4  AWS refused the request
  5  AWS, or the hardware with the key, could not be reached or failed in
     passing: worth trying again later`

var (
	errUsage    = errors.New("usage")
	errIdentity = errors.New("identity")
)

// classed gives an error an exit code without a word in its message.
type classed struct {
	error
	class error
}

func (e *classed) Unwrap() []error { return []error{e.error, e.class} }

func usageError(cmd *cobra.Command, err error) error {
	if signer.Hint(err) == "" {
		err = signer.WithHint(err, "see "+cmd.CommandPath()+" --help")
	}
	return &classed{err, errUsage}
}

func identityError(err error) error {
	if err == nil {
		return nil
	}
	return &classed{err, errIdentity}
}

func exitCode(err error) int {
	var refused *rolesanywhere.Error
	switch {
	case errors.Is(err, errUsage), errors.Is(err, rolesanywhere.ErrInput):
		return exitUsage
	case keyIsAway(err):
		return exitPassing
	case errors.Is(err, errIdentity), errors.Is(err, rolesanywhere.ErrNotSigned), errors.Is(err, rolesanywhere.ErrBadSignature),
		errors.Is(err, rolesanywhere.ErrCertificateExpired), errors.Is(err, rolesanywhere.ErrCertificateNotYetValid),
		errors.Is(err, rolesanywhere.ErrCertificateUnfit):
		return exitIdentity
	case errors.As(err, &refused):
		if refused.StatusCode >= 500 || refused.StatusCode == http.StatusTooManyRequests {
			return exitPassing
		}
		return exitRefused
	case errors.Is(err, context.Canceled), errors.Is(err, fs.ErrExist):
		return exitFailure
	case errors.Is(err, rolesanywhere.ErrUnreachable), errors.Is(err, rolesanywhere.ErrIntercepted),
		errors.Is(err, rolesanywhere.ErrUnexpectedAnswer):
		return exitPassing
	}
	return exitFailure
}

// keyIsAway: the key's hardware does not answer, or not in time.
func keyIsAway(err error) bool {
	ofKey := errors.Is(err, errIdentity) || errors.Is(err, rolesanywhere.ErrNotSigned)
	return ofKey && (errors.Is(err, signer.ErrTokenGone) || errors.Is(err, context.DeadlineExceeded))
}

func quoted(s string) string { return strconv.Quote(s) }
