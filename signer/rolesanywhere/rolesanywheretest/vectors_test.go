package rolesanywheretest_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// vector is a request recorded from AWS's own helper.
type vector struct {
	Name, Method, Path, RawQuery, Body, Region string
	Headers                                    map[string]string
	CanonicalRequestSHA256, StringToSign       string
	StringToSignSHA256                         string
}

func vectors(t *testing.T) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/createsession.json")
	check(t, err)
	var all []vector
	check(t, json.Unmarshal(data, &all))
	if len(all) != 2 {
		t.Fatalf("%d vectors, want 2", len(all))
	}
	return all
}

func (v vector) request(t *testing.T) *http.Request {
	t.Helper()
	r := &http.Request{
		Method: v.Method, Host: v.Headers["Host"], Header: make(http.Header), Body: http.NoBody,
		URL: &url.URL{Path: v.Path, RawQuery: v.RawQuery},
	}
	if v.Body != "" {
		r.Body = body(v.Body)
	}
	for name, value := range v.Headers {
		if name != "Host" {
			r.Header.Set(name, value)
		}
	}
	return r
}

// world arranges a server at the vector's time, with its ARNs. The CA of the
// recording is lost, so its leaf is pinned.
func (v vector) world(t *testing.T) *world {
	t.Helper()
	w := &world{Server: &rolesanywheretest.Server{Region: v.Region}}
	at, err := time.Parse("20060102T150405Z", v.Headers["X-Amz-Date"])
	check(t, err)
	w.Clock = func() time.Time { return at }
	der, err := base64.StdEncoding.DecodeString(v.Headers["X-Amz-X509"])
	check(t, err)
	leaf, err := x509.ParseCertificate(der)
	check(t, err)
	query, err := url.ParseQuery(v.RawQuery)
	check(t, err)
	_, err = w.AddTrustAnchor(rolesanywheretest.TrustAnchor{ARN: query.Get("trustAnchorArn"), PinnedLeaves: []*x509.Certificate{leaf}})
	check(t, err)
	w.AddRole(rolesanywheretest.Role{ARN: query.Get("roleArn")})
	w.AddProfile(rolesanywheretest.Profile{ARN: query.Get("profileArn"), RoleARNs: []string{query.Get("roleArn")}})
	return w
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			canonical, err := rolesanywheretest.Canonicalize(v.request(t), []byte(v.Body))
			check(t, err)
			if got := hexHash(canonical.Request); got != v.CanonicalRequestSHA256 {
				t.Errorf("canonical request hashes to %s, want %s:\n%s", got, v.CanonicalRequestSHA256, canonical.Request)
			}
			if canonical.StringToSign != v.StringToSign {
				t.Errorf("string to sign is\n%s\nwant\n%s", canonical.StringToSign, v.StringToSign)
			}
			if got := hexHash(canonical.StringToSign); got != v.StringToSignSHA256 {
				t.Errorf("string to sign hashes to %s, want %s", got, v.StringToSignSHA256)
			}
			w := v.world(t)
			wantCreated(t, w, w.serve(t, v.request(t)))
		})
	}
}

// TestVectorsBent changes every byte that a signature covers, one at a time.
// Nothing may be accepted, and the answer must be the one recorded here.
func TestVectorsBent(t *testing.T) {
	t.Parallel()
	const (
		signature = "403 AccessDeniedException: Invalid signature"
		region    = "403 AccessDeniedException: Credential should be scoped to a valid region."
		malformed = "400 ValidationException: Unable to parse the signing certificate."
		operation = "404 UnknownOperationException: Unknown operation"
	)
	type field struct {
		name string
		want []string // the answers that may come
		get  func(*vector) string
		set  func(*vector, string)
	}
	header := func(name string, want ...string) field {
		return field{name, want,
			func(v *vector) string { return v.Headers[name] },
			func(v *vector, text string) { v.Headers[name] = text }}
	}
	fields := []field{
		{"method", []string{operation}, func(v *vector) string { return v.Method }, func(v *vector, text string) { v.Method = text }},
		{"path", []string{operation}, func(v *vector) string { return v.Path }, func(v *vector, text string) { v.Path = text }},
		{"query", []string{signature}, func(v *vector) string { return v.RawQuery }, func(v *vector, text string) { v.RawQuery = text }},
		{"body", []string{signature}, func(v *vector) string { return v.Body }, func(v *vector, text string) { v.Body = text }},
		header("Host", signature),
		header("Content-Type", signature),
		header("X-Amz-Date", signature),
		// most flips break the DER, a few the serial or the key; the rest leave a certificate whose request hashes differently
		header("X-Amz-X509", signature, malformed),
		// a flip within the region is still a region, but not the endpoint's
		header("Authorization", signature, region),
	}
	for _, original := range vectors(t) {
		t.Run(original.Name, func(t *testing.T) {
			t.Parallel()
			w := original.world(t)
			for _, f := range fields {
				text := f.get(&original)
				met := make(map[string]int)
				for i := range text {
					bent := original
					bent.Headers = maps.Clone(original.Headers)
					f.set(&bent, text[:i]+string(text[i]^1)+text[i+1:])
					got := answerOf(w.serve(t, bent.request(t)))
					met[got]++
					if !slices.Contains(f.want, got) {
						t.Fatalf("%s, byte %d of %q: %s", f.name, i, text, got)
					}
				}
				t.Logf("%s: %v", f.name, met)
				if len(met) != len(f.want) {
					t.Errorf("%s: met %v, want each of %q", f.name, met, f.want)
				}
			}
			for name := range original.Headers {
				bent := original
				bent.Headers = maps.Clone(original.Headers)
				delete(bent.Headers, name)
				want := signature
				if name == "Authorization" {
					want = "403 MissingAuthenticationTokenException: Missing Authentication Token"
				}
				if got := answerOf(w.serve(t, bent.request(t))); got != want {
					t.Errorf("without %s: %s, want %s", name, got, want)
				}
			}
		})
	}
}

// TestVectorsEdited makes the changes a faulty signer would make.
func TestVectorsEdited(t *testing.T) {
	t.Parallel()
	edits := []struct{ name, old, new, message, reason string }{
		{"serial", "Credential=", "Credential=1", "Invalid signature", "serial is"},
		{"serial in hex", "Credential=", "Credential=0x", "Invalid signature", "not decimal"},
		{"region", "us-east-2", "us-east-1", "Credential should be scoped to a valid region.", "scope's region"},
		{"FIPS region", "us-east-2", "us-east-2-fips", "Credential should be scoped to a valid region.", "us-east-2-fips"},
		{"scope date", "/20240706/", "/20240707/", "Invalid signature", "scope's date"},
		{"service", "/rolesanywhere/", "/sts/", "Invalid signature", "service"},
		{"terminator", "aws4_request", "aws5_request", "Invalid signature", "ends in"},
		{"order of signed headers", "content-type;host", "host;content-type", "Invalid signature", "out of order"},
		{"signed header twice", "content-type;host", "content-type;host;host", "Invalid signature", "listed twice"},
		{"signed header in upper case", "content-type", "Content-Type", "Invalid signature", "lower-case"},
		{"content type not signed", "content-type;", "", "Invalid signature", "must be signed"},
		{"host not signed", "host;", "", "Invalid signature", "must be signed"},
		{"date not signed", "x-amz-date;", "", "Invalid signature", "must be signed"},
		{"certificate not signed", ";x-amz-x509", "", "Invalid signature", "must be signed"},
		{"signed header not sent", "host;", "host;user-agent;", "Invalid signature", "sent 0 times"},
		{"other algorithm", "AWS4-X509", "AWS4-X508", "Invalid signature", "unknown algorithm"},
		{"no space after comma", ", ", ",", "Invalid signature", "parts"},
	}
	for _, original := range vectors(t) {
		w := original.world(t)
		for _, edit := range edits {
			bent := original
			bent.Headers = maps.Clone(original.Headers)
			bent.Headers["Authorization"] = strings.Replace(original.Headers["Authorization"], edit.old, edit.new, 1)
			got := answerOf(w.serve(t, bent.request(t)))
			if want := "403 AccessDeniedException: " + edit.message; got != want || !strings.Contains(w.last().Reason, edit.reason) {
				t.Errorf("%s, %s: %s (%s), want %s (…%s…)", original.Name, edit.name, got, w.last().Reason, want, edit.reason)
			}
		}
	}
}

func TestCanonicalizeRefusal(t *testing.T) {
	t.Parallel()
	r := vectors(t)[0].request(t)
	r.Header.Add("X-Amz-Extra", "not signed")
	_, err := rolesanywheretest.Canonicalize(r, nil)
	var refusal *rolesanywheretest.Refusal
	if !errors.As(err, &refusal) || refusal.Message != "Invalid signature" || refusal.Status != http.StatusForbidden {
		t.Errorf("error %v, want a Refusal", err)
	}
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.call().request()
	r.Header.Add("Authorization", r.Header.Get("Authorization"))
	if got := answerOf(w.serve(t, r)); got != "403 AccessDeniedException: Invalid signature" || w.last().Reason != "more than one Authorization header" {
		t.Errorf("%s (%s)", got, w.last().Reason)
	}
}
