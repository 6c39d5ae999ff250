package sts

import (
	"encoding/xml"
	"fmt"
	"net/http"
)

// Error is an answer other than 200, by AWS's code.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func (e *Error) fault() string {
	if e.Status >= http.StatusInternalServerError {
		return "Receiver"
	}
	return "Sender"
}

func fail(status int, code, format string, args ...any) *Error {
	return &Error{status, code, fmt.Sprintf(format, args...)}
}

// The answers to requests that prove no identity, in AWS's words.
var (
	internalFailure   = fail(http.StatusInternalServerError, "InternalFailure", "")
	missingToken      = fail(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	invalidToken      = fail(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
	expiredToken      = fail(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	signatureMismatch = mismatch("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
)

func mismatch(format string, args ...any) *Error {
	return fail(http.StatusForbidden, "SignatureDoesNotMatch", format, args...)
}

func incomplete(format string, args ...any) *Error {
	return fail(http.StatusBadRequest, "IncompleteSignature", format, args...)
}

func invalid(format string, args ...any) *Error {
	return fail(http.StatusBadRequest, "ValidationError", format, args...)
}

type errorResponse struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	NS        string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}
