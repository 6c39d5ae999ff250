package rolesanywheretest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// Canonical is what a request's signature covers, as the verifier computes it.
type Canonical struct {
	Request      string // the canonical request
	StringToSign string // what RSA and EC sign the SHA-256 of, and ML-DSA itself
}

// Canonicalize returns what the signature in r's Authorization header must
// cover. It reads the header's algorithm, scope and signed headers and r's
// method, URL, Host and headers; r.Body is left alone, body is used in its
// place. No signature, date or certificate is verified. The error is a
// *Refusal.
func Canonicalize(r *http.Request, body []byte) (Canonical, error) {
	auth, refusal := authorizationOf(r)
	if refusal != nil {
		return Canonical{}, refusal
	}
	canonical, err := canonicalize(r, body, auth)
	if err != nil {
		return Canonical{}, badSignature(err.Error())
	}
	return canonical, nil
}

func authorizationOf(r *http.Request) (authorization, *Refusal) {
	headers := r.Header.Values("Authorization")
	switch len(headers) {
	case 0:
		return authorization{}, &Refusal{http.StatusForbidden, "MissingAuthenticationTokenException", msgNoToken, "no Authorization header"}
	case 1:
	default:
		return authorization{}, badSignature("more than one Authorization header")
	}
	auth, err := parseAuthorization(headers[0])
	if err != nil {
		return authorization{}, badSignature("Authorization: " + err.Error())
	}
	return auth, nil
}

func canonicalize(r *http.Request, body []byte, auth authorization) (Canonical, error) {
	if err := checkSignedHeaders(r, auth.signedHeaders); err != nil {
		return Canonical{}, err
	}
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return Canonical{}, err
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + r.URL.EscapedPath() + "\n" + query.canonical() + "\n")
	for _, name := range auth.signedHeaders {
		b.WriteString(name + ":" + strings.Trim(headerValues(r, name)[0], " \t") + "\n")
	}
	b.WriteString("\n" + strings.Join(auth.signedHeaders, ";") + "\n" + hexSHA256(body))

	request := b.String()
	return Canonical{
		Request: request,
		StringToSign: strings.Join([]string{
			auth.algorithm, strings.Join(headerValues(r, "x-amz-date"), ","), auth.scope(), hexSHA256([]byte(request)),
		}, "\n"),
	}, nil
}

// checkSignedHeaders checks that all is signed that must be and that each
// signed header was sent once.
func checkSignedHeaders(r *http.Request, signed []string) error {
	must := []string{"host", "x-amz-date", "x-amz-x509"}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") || lower == "content-type" {
			must = append(must, lower)
		}
	}
	slices.Sort(must)
	for _, name := range must {
		if !slices.Contains(signed, name) {
			return fmt.Errorf("header %s must be signed", name)
		}
	}
	for _, name := range signed {
		if n := len(headerValues(r, name)); n != 1 {
			return fmt.Errorf("signed header %s was sent %d times, want once", name, n)
		}
	}
	return nil
}

// headerValues also finds the host, which net/http keeps elsewhere.
func headerValues(r *http.Request, name string) []string {
	if name != "host" {
		return r.Header[textproto.CanonicalMIMEHeaderKey(name)]
	}
	switch {
	case r.Host != "":
		return []string{r.Host}
	case r.URL.Host != "": // a request not sent yet
		return []string{r.URL.Host}
	}
	return nil
}

type parameter struct{ name, value string }

// query is the parameters of a URL, decoded, in the order sent.
type query []parameter

// parseQuery decodes as RFC 3986 has it: "+" is a plus, not a space.
func parseQuery(raw string) (query, error) {
	if raw == "" {
		return nil, nil
	}
	var q query
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		var err1, err2 error
		name, err1 = url.PathUnescape(name)
		value, err2 = url.PathUnescape(value)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		if name == "" {
			return nil, errors.New("query: a parameter without a name")
		}
		q = append(q, parameter{name, value})
	}
	return q, nil
}

// canonical returns the query encoded and sorted by name, then value.
func (q query) canonical() string {
	pairs := make([]parameter, len(q))
	for i, p := range q {
		pairs[i] = parameter{percentEncode(p.name), percentEncode(p.value)}
	}
	slices.SortFunc(pairs, func(a, b parameter) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	parts := make([]string, len(pairs))
	for i, p := range pairs {
		parts[i] = p.name + "=" + p.value
	}
	return strings.Join(parts, "&")
}

// percentEncode leaves RFC 3986's unreserved characters alone and nothing else.
func percentEncode(text string) string {
	const upper = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', upper[c>>4], upper[c&15]})
	}
	return b.String()
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
