package sts

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	dateLayout = "20060102T150405Z"

	// Lives of presigned URLs in seconds; the default is for signers that name
	// none, as aws-sdk-go-v2 does for STS.
	maxPresign     = 7 * 24 * 3600
	defaultPresign = 15 * 60
)

// A claim is what a request says of its signature, in the Authorization
// header or, presigned, in the query.
type claim struct {
	accessKeyID   string
	scope         [4]string // date, region, service, "aws4_request"
	signedHeaders []string
	signature     string
	date          string
	token         string
	presigned     bool
	expires       int // seconds, presigned only
}

// authenticate verifies the request's signature and returns whose it is.
func (h *Handler) authenticate(r *http.Request, body []byte) (Credentials, error) {
	c, err := readClaim(r)
	if err != nil {
		return Credentials{}, err
	}
	if err := h.checkClaim(c, r); err != nil {
		return Credentials{}, err
	}
	caller, ok := h.lookup(c.accessKeyID)
	if !ok || subtle.ConstantTimeCompare([]byte(caller.SessionToken), []byte(c.token)) != 1 {
		return Credentials{}, invalidToken
	}
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	if declared := r.Header.Values("X-Amz-Content-Sha256"); len(declared) > 0 && (len(declared) > 1 || declared[0] != payload) {
		return Credentials{}, mismatch("The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	canonical, err := canonicalRequest(r, c, payload)
	if err != nil {
		return Credentials{}, err
	}
	want := hex.EncodeToString(sign(caller.SecretAccessKey, c, canonical))
	if subtle.ConstantTimeCompare([]byte(want), []byte(c.signature)) != 1 {
		return Credentials{}, signatureMismatch
	}
	// Only who holds the secret learns that it has expired.
	if !caller.Expiration.IsZero() && !h.now().Before(caller.Expiration) {
		return Credentials{}, expiredToken
	}
	return caller, nil
}

func (h *Handler) lookup(accessKeyID string) (Credentials, bool) {
	h.mu.Lock()
	c, ok := h.issued[accessKeyID]
	h.mu.Unlock()
	if !ok && h.Lookup != nil {
		c, ok = h.Lookup(accessKeyID)
	}
	return c, ok && c.SecretAccessKey != ""
}

func readClaim(r *http.Request) (*claim, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "MalformedQueryString", "the query is not form-encoded")
	}
	header := r.Header.Values("Authorization")
	switch presigned := query.Has("X-Amz-Signature") || query.Has("X-Amz-Algorithm"); {
	case presigned && len(header) > 0:
		return nil, incomplete("Only one auth mechanism allowed: the query has a signature, and there is an Authorization header.")
	case presigned:
		return claimFromQuery(query)
	case len(header) == 0:
		return nil, missingToken
	case len(header) > 1:
		return nil, incomplete("There is more than one Authorization header.")
	}
	return claimFromHeader(header[0], r.Header)
}

// claimFromHeader reads "AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…,
// Signature=…".
func claimFromHeader(authorization string, header http.Header) (*claim, error) {
	name, rest, _ := strings.Cut(authorization, " ")
	if name != algorithm {
		return nil, incomplete("The Authorization header's algorithm is %q, not %s.", name, algorithm)
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := fields[key]; !ok || twice || !slices.Contains([]string{"Credential", "SignedHeaders", "Signature"}, key) {
			return nil, incomplete("The Authorization header's part %q is unknown, repeated or no key=value pair.", key)
		}
		fields[key] = value
	}
	for _, key := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[key] == "" {
			return nil, incomplete("Authorization header requires '%s' parameter.", key)
		}
	}
	dates, tokens := header.Values("X-Amz-Date"), header.Values("X-Amz-Security-Token")
	if len(dates) != 1 {
		return nil, incomplete("Authorization header requires existence of one 'X-Amz-Date' header.")
	}
	if len(tokens) > 1 {
		return nil, incomplete("There is more than one 'X-Amz-Security-Token' header.")
	}
	c := &claim{signature: fields["Signature"], date: dates[0]}
	if len(tokens) == 1 {
		c.token = tokens[0]
	}
	return c, c.parse(fields["Credential"], fields["SignedHeaders"])
}

func claimFromQuery(query url.Values) (*claim, error) {
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		if len(query[name]) != 1 || query.Get(name) == "" {
			return nil, incomplete("AWS query-string parameters must include '%s' once.", name)
		}
	}
	for _, name := range []string{"X-Amz-Security-Token", "X-Amz-Expires"} {
		if len(query[name]) > 1 {
			return nil, incomplete("AWS query-string parameters include '%s' more than once.", name)
		}
	}
	if query.Get("X-Amz-Algorithm") != algorithm {
		return nil, incomplete("The X-Amz-Algorithm is not %s.", algorithm)
	}
	expires := defaultPresign
	if text := query.Get("X-Amz-Expires"); query.Has("X-Amz-Expires") {
		var err error
		if expires, err = strconv.Atoi(text); err != nil || expires < 1 || expires > maxPresign {
			return nil, incomplete("X-Amz-Expires must be a number of seconds from 1 to %d.", maxPresign)
		}
	}
	c := &claim{
		signature: query.Get("X-Amz-Signature"),
		date:      query.Get("X-Amz-Date"),
		token:     query.Get("X-Amz-Security-Token"),
		presigned: true,
		expires:   expires,
	}
	return c, c.parse(query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"))
}

func (c *claim) parse(credential, signedHeaders string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	c.accessKeyID = parts[0]
	copy(c.scope[:], parts[1:])
	c.signedHeaders = strings.Split(signedHeaders, ";")
	return nil
}

// checkClaim checks all that needs no secret: scope, date and which headers
// are signed.
func (h *Handler) checkClaim(c *claim, r *http.Request) error {
	region := h.Region
	if region == "" {
		region = "us-east-1"
	}
	switch {
	case c.scope[1] != region:
		return mismatch("Credential should be scoped to a valid region.")
	case c.scope[2] != "sts":
		return mismatch("Credential should be scoped to correct service: 'sts'.")
	case c.scope[3] != "aws4_request":
		return mismatch("Credential should be scoped with a valid terminator: 'aws4_request'.")
	}
	at, err := time.Parse(dateLayout, c.date)
	if err != nil {
		return incomplete("Date must be in ISO-8601 'basic format'. Got '%s'.", c.date)
	}
	if c.scope[0] != c.date[:8] {
		return mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	}
	if err := h.checkDate(c, at); err != nil {
		return err
	}
	return checkSignedHeaders(c, r.Header)
}

func (h *Handler) checkDate(c *claim, at time.Time) error {
	skew := h.MaxClockSkew
	if skew == 0 {
		skew = 5 * time.Minute
	}
	now := h.now()
	life := skew
	if c.presigned {
		life = time.Duration(c.expires) * time.Second
	}
	if now.After(at.Add(life)) {
		return mismatch("Signature expired: %s is now earlier than %s (%s - %v.)", c.date,
			now.UTC().Add(-life).Format(dateLayout), now.UTC().Format(dateLayout), life)
	}
	if now.Before(at.Add(-skew)) {
		return mismatch("Signature not yet current: %s is still later than %s (%s + %v.)", c.date,
			now.UTC().Add(skew).Format(dateLayout), now.UTC().Format(dateLayout), skew)
	}
	return nil
}

// checkSignedHeaders demands what a signer must cover: the host and every
// x-amz- header there is.
func checkSignedHeaders(c *claim, header http.Header) error {
	for i, name := range c.signedHeaders {
		if name == "" || name != strings.ToLower(name) || i > 0 && c.signedHeaders[i-1] >= name {
			return mismatch("The SignedHeaders are not lower-case names in order, each once.")
		}
	}
	if !slices.Contains(c.signedHeaders, "host") {
		return mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") && !slices.Contains(c.signedHeaders, lower) {
			return mismatch("'%s' must be a 'SignedHeader' in the AWS Authorization.", name)
		}
	}
	return nil
}

func canonicalRequest(r *http.Request, c *claim, payload string) (string, error) {
	query, err := canonicalQuery(r.URL.RawQuery, c.presigned)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n/\n" + query + "\n")
	for _, name := range c.signedHeaders {
		values := r.Header.Values(name)
		switch {
		case name == "host":
			values = []string{r.Host}
		case name == "content-length" && len(values) == 0 && r.ContentLength >= 0:
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		case len(values) == 0:
			return "", mismatch("The signed header '%s' is not in the request.", name)
		}
		b.WriteString(name + ":")
		for i, v := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.Join(strings.Fields(v), " "))
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n" + strings.Join(c.signedHeaders, ";") + "\n" + payload)
	return b.String(), nil
}

func canonicalQuery(raw string, presigned bool) (string, error) {
	type pair struct{ name, value string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, errName := url.QueryUnescape(name)
		value, errValue := url.QueryUnescape(value)
		if errName != nil || errValue != nil {
			return "", fail(http.StatusBadRequest, "MalformedQueryString", "the query is not form-encoded")
		}
		if presigned && name == "X-Amz-Signature" {
			continue
		}
		pairs = append(pairs, pair{uriEncode(name), uriEncode(value)})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if a.name != b.name {
			return strings.Compare(a.name, b.name)
		}
		return strings.Compare(a.value, b.value)
	})
	encoded := make([]string, len(pairs))
	for i, p := range pairs {
		encoded[i] = p.name + "=" + p.value
	}
	return strings.Join(encoded, "&"), nil
}

// uriEncode escapes every byte but RFC 3986's unreserved ones.
func uriEncode(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

func sign(secret string, c *claim, canonical string) []byte {
	sum := sha256.Sum256([]byte(canonical))
	toSign := algorithm + "\n" + c.date + "\n" + strings.Join(c.scope[:], "/") + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + secret)
	for _, part := range append(c.scope[:], toSign) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return key
}
