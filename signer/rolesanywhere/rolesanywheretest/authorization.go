package rolesanywheretest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The signing algorithms of the protocol.
const (
	algorithmRSA   = "AWS4-X509-RSA-SHA256"
	algorithmECDSA = "AWS4-X509-ECDSA-SHA256"
	algorithmMLDSA = "AWS4-X509-MLDSA"
)

const (
	service    = "rolesanywhere"
	terminator = "aws4_request"
)

// authorization is a parsed Authorization header.
type authorization struct {
	algorithm     string
	serial        string // decimal, no sign, no leading zero
	date          string // YYYYMMDD, not yet known to be a date
	region        string
	signedHeaders []string // lower-case, sorted, no duplicates
	signature     []byte
}

// scope returns the credential scope, the third line of the string to sign.
func (a authorization) scope() string {
	return a.date + "/" + a.region + "/" + service + "/" + terminator
}

// parseAuthorization parses
//
//	ALG Credential=SERIAL/DATE/REGION/rolesanywhere/aws4_request, SignedHeaders=a;b, Signature=hex
//
// to the letter: this order, one space, ", " between. A header that passes
// has one spelling only.
func parseAuthorization(header string) (authorization, error) {
	var a authorization
	algorithm, rest, _ := strings.Cut(header, " ")
	if !slices.Contains([]string{algorithmRSA, algorithmECDSA, algorithmMLDSA}, algorithm) {
		return a, fmt.Errorf("unknown algorithm %q", algorithm)
	}
	parts := strings.Split(rest, ", ")
	if len(parts) != 3 {
		return a, fmt.Errorf(`%d parts divided by ", ", want Credential, SignedHeaders and Signature`, len(parts))
	}
	credential, ok1 := strings.CutPrefix(parts[0], "Credential=")
	headers, ok2 := strings.CutPrefix(parts[1], "SignedHeaders=")
	signature, ok3 := strings.CutPrefix(parts[2], "Signature=")
	if !ok1 || !ok2 || !ok3 {
		return a, errors.New("not of the form Credential=…, SignedHeaders=…, Signature=…")
	}
	a.algorithm = algorithm
	if err := a.parseCredential(credential); err != nil {
		return authorization{}, err
	}
	if err := a.parseSignedHeaders(headers); err != nil {
		return authorization{}, err
	}
	if signature == "" || strings.ContainsFunc(signature, isNot("0123456789abcdef")) {
		return authorization{}, errors.New("signature is not lower-case hex")
	}
	var err error
	if a.signature, err = hex.DecodeString(signature); err != nil {
		return authorization{}, fmt.Errorf("signature: %w", err)
	}
	return a, nil
}

func (a *authorization) parseCredential(credential string) error {
	fields := strings.Split(credential, "/")
	if len(fields) != 5 {
		return fmt.Errorf("credential has %d fields, want 5", len(fields))
	}
	a.serial, a.date, a.region = fields[0], fields[1], fields[2]
	const digits = "0123456789"
	switch {
	case a.serial == "" || len(a.serial) > 100 || strings.ContainsFunc(a.serial, isNot(digits)):
		return fmt.Errorf("serial %.100q is not decimal", a.serial)
	case len(a.serial) > 1 && a.serial[0] == '0':
		return fmt.Errorf("serial %q has a leading zero", a.serial)
	case len(a.date) != 8 || strings.ContainsFunc(a.date, isNot(digits)):
		return fmt.Errorf("scope date %.100q is not YYYYMMDD", a.date)
	case a.region == "" || strings.ContainsFunc(a.region, isNot(digits+"abcdefghijklmnopqrstuvwxyz-")):
		return fmt.Errorf("scope region %.100q is no region", a.region)
	case fields[3] != service:
		return fmt.Errorf("scope service is %.100q, want %q", fields[3], service)
	case fields[4] != terminator:
		return fmt.Errorf("scope ends in %.100q, want %q", fields[4], terminator)
	}
	return nil
}

func (a *authorization) parseSignedHeaders(headers string) error {
	a.signedHeaders = strings.Split(headers, ";")
	for i, name := range a.signedHeaders {
		switch {
		case name == "":
			return errors.New("empty name in SignedHeaders")
		case strings.ContainsFunc(name, isNot("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")):
			return fmt.Errorf("signed header %.100q is no lower-case header name", name)
		case i > 0 && name == a.signedHeaders[i-1]:
			return fmt.Errorf("signed header %q is listed twice", name)
		case i > 0 && name < a.signedHeaders[i-1]:
			return fmt.Errorf("signed header %q is out of order", name)
		}
	}
	return nil
}

// isNot returns whether a rune is none of the characters.
func isNot(characters string) func(rune) bool {
	return func(r rune) bool { return !strings.ContainsRune(characters, r) }
}
