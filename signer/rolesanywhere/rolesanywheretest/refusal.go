package rolesanywheretest

import "net/http"

// Refusal is an answer other than 201, and the error of what the control
// plane would refuse.
type Refusal struct {
	Status  int    // HTTP status
	Type    string // x-amzn-ErrorType
	Message string // the body's message, AWS's own words where they are known

	// Reason is what exactly was wrong, in this package's words. It is never
	// sent: AWS does not tell either. Find it in Request.Reason.
	Reason string
}

// Error returns the type, the message and the reason.
func (r *Refusal) Error() string {
	text := r.Type + ": " + r.Message
	if r.Reason != "" {
		text += " (" + r.Reason + ")"
	}
	return text
}

// Messages seen from AWS in public.
const (
	msgInvalidSignature  = "Invalid signature"
	msgUntrusted         = "Untrusted signing certificate"
	msgInsufficient      = "Untrusted certificate. Insufficient certificate"
	msgRevoked           = "Certificate revoked"
	msgRoleSessionName   = "Not authorized to set roleSessionName."
	msgNoTrustAnchor     = "Specified Trust Anchor wasn't found."
	msgNoProfile         = "Invalid or empty profile provided."
	msgRoleNotInProfile  = "Requested Role isn't one of those listed in the Profile."
	msgMaxSession        = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
	msgBasicConstraints  = "Incorrect basic constraints for CA certificate"
	msgAttributesNotTags = "Some attributes failed to be mapped into session tags."
)

// Messages of this package's choosing: what AWS says there was not observed.
const (
	msgNoToken          = "Missing Authentication Token" // as other AWS services say it
	msgRegionScope      = "Credential should be scoped to a valid region."
	msgAnchorDisabled   = "Specified Trust Anchor is disabled."
	msgProfileDisabled  = "Specified Profile is disabled."
	msgMalformedCert    = "Unable to parse the signing certificate."
	msgMalformedChain   = "Unable to parse the certificate chain."
	msgConflict         = "Conflicting values in query and body."
	msgRateExceeded     = "Rate exceeded" // as other AWS services say it
	msgUnknownOperation = "Unknown operation"
	msgNotJSON          = "Unable to parse the request body as JSON." // SerializationException
)

func denied(message, reason string) *Refusal {
	return &Refusal{http.StatusForbidden, "AccessDeniedException", message, reason}
}

func invalid(message, reason string) *Refusal {
	return &Refusal{http.StatusBadRequest, "ValidationException", message, reason}
}

func notFound(message, reason string) *Refusal {
	return &Refusal{http.StatusNotFound, "ResourceNotFoundException", message, reason}
}

// badSignature is the answer to whatever keeps a signature from being
// verified; AWS does not tell which part of it was wrong.
func badSignature(reason string) *Refusal { return denied(msgInvalidSignature, reason) }

// unassumable is what the service makes of a refusal by STS. detail is empty
// or a sentence.
func unassumable(roleARN, detail, reason string) *Refusal {
	message := "Unable to assume role for " + roleARN + "."
	if detail != "" {
		message += " " + detail
	}
	return denied(message, reason)
}
