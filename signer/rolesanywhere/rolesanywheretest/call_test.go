package rolesanywheretest_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// noon is the time of every server here.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// world is a server with one of each.
type world struct {
	*rolesanywheretest.Server
	ca, leaf              authority
	anchor, profile, role string // ARNs
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return worldOf(t, "P-256", "P-256")
}

func worldOf(t *testing.T, caKind, leafKind string) *world {
	t.Helper()
	w := &world{Server: rolesanywheretest.NewUnstartedServer()}
	w.Clock = func() time.Time { return noon }
	t.Cleanup(w.Close)
	w.ca = newCA(t, caKind, "Root")
	w.leaf = newLeaf(t, w.ca, leafKind, "press-7")
	var err error
	w.anchor, err = w.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "root", Certificates: []*x509.Certificate{w.ca.Certificate}})
	check(t, err)
	w.role = w.AddRole(rolesanywheretest.Role{Name: "press"})
	w.profile = w.AddProfile(rolesanywheretest.Profile{Name: "plant", RoleARNs: []string{w.role}})
	return w
}

// call is a CreateSession request, signed by this file's own reading of the
// protocol. Every field can be bent before request is called.
type call struct {
	method, path, host, body string
	params                   [][2]string
	header                   http.Header // all of it is signed
	algorithm, serial        string
	day, region, terminator  string
	sign                     func([]byte) []byte
	unsigned                 http.Header // sent, not signed
	listed                   []string    // replaces SignedHeaders
}

func (w *world) call() *call { return w.callBy(w.leaf) }

func (w *world) callBy(leaf authority, chain ...*x509.Certificate) *call {
	c := &call{
		method: "POST", path: "/sessions", host: "rolesanywhere.us-east-1.amazonaws.com", body: `{"durationSeconds":3600}`,
		params:    [][2]string{{"profileArn", w.profile}, {"roleArn", w.role}, {"trustAnchorArn", w.anchor}},
		algorithm: leaf.algorithm, serial: leaf.SerialNumber.String(),
		day: noon.Format("20060102"), region: "us-east-1", terminator: "rolesanywhere/aws4_request",
		sign: leaf.sign, unsigned: make(http.Header),
		header: http.Header{
			"Content-Type": {"application/json"},
			"X-Amz-Date":   {noon.Format("20060102T150405Z")},
			"X-Amz-X509":   {base64Of(leaf.Raw)},
		},
	}
	c.chain(chain...)
	return c
}

func (c *call) chain(chain ...*x509.Certificate) {
	var parts []string
	for _, certificate := range chain {
		parts = append(parts, base64Of(certificate.Raw))
	}
	if parts != nil {
		c.header.Set("X-Amz-X509-Chain", strings.Join(parts, ","))
	}
}

// param replaces the value of a query parameter, or leaves it out.
func (c *call) param(name string, values ...string) {
	c.params = slices.DeleteFunc(c.params, func(p [2]string) bool { return p[0] == name })
	for _, value := range values {
		c.params = append(c.params, [2]string{name, value})
	}
}

func (c *call) query() string {
	var parts []string
	for _, p := range c.params {
		parts = append(parts, p[0]+"="+strings.ReplaceAll(url.QueryEscape(p[1]), "+", "%20"))
	}
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

func (c *call) request() *http.Request {
	values := map[string]string{"host": c.host}
	for name, value := range c.header {
		values[strings.ToLower(name)] = strings.Join(value, ",")
	}
	var names []string
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	lines := []string{c.method, c.path, c.query()}
	for _, name := range names {
		lines = append(lines, name+":"+values[name])
	}
	if c.listed != nil {
		names = c.listed
	}
	signedHeaders := strings.Join(names, ";")
	lines = append(lines, "", signedHeaders, hexHash(c.body))
	scope := c.day + "/" + c.region + "/" + c.terminator
	toSign := strings.Join([]string{c.algorithm, c.header.Get("X-Amz-Date"), scope, hexHash(strings.Join(lines, "\n"))}, "\n")

	r, err := http.NewRequest(c.method, "http://"+c.host+c.path+"?"+c.query(), strings.NewReader(c.body))
	if err != nil {
		panic(err)
	}
	r.Header = c.header.Clone()
	for name, value := range c.unsigned {
		r.Header[name] = append(r.Header[name], value...)
	}
	r.Header.Set("Authorization", c.algorithm+" Credential="+c.serial+"/"+scope+
		", SignedHeaders="+signedHeaders+", Signature="+hex.EncodeToString(c.sign([]byte(toSign))))
	return r
}

func hexHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// reply is an answer, with its body decoded as far as tests need it.
type reply struct {
	status    int
	header    http.Header
	body      []byte
	errorType string
	Message   string
	Set       []struct {
		AssumedRoleUser         struct{ Arn, AssumedRoleID string }
		Credentials             struct{ AccessKeyID, Expiration, SecretAccessKey, SessionToken string }
		PackedPolicySize        *int
		RoleArn, SourceIdentity string
	} `json:"credentialSet"`
	SubjectArn string
}

// serve hands the request to the server without a network.
func (w *world) serve(t *testing.T, r *http.Request) reply {
	t.Helper()
	recorder := httptest.NewRecorder()
	w.ServeHTTP(recorder, r)
	return readReply(t, recorder.Result())
}

func (w *world) do(t *testing.T, c *call) reply {
	t.Helper()
	return w.serve(t, c.request())
}

// send goes over the network, to a started server.
func (w *world) send(t *testing.T, c *call) (reply, error) {
	t.Helper()
	c.host = strings.SplitN(w.URL, "//", 2)[1]
	r := c.request()
	r.URL.Scheme = strings.SplitN(w.URL, ":", 2)[0]
	response, err := w.Client().Do(r)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{status: response.StatusCode, header: response.Header, body: body}, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return readReply(t, response), nil
}

func readReply(t *testing.T, response *http.Response) reply {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	check(t, err)
	r := reply{status: response.StatusCode, header: response.Header, body: body, errorType: response.Header.Get("x-amzn-ErrorType")}
	if response.Header.Get("Content-Type") == "application/json" && len(body) > 0 {
		check(t, json.Unmarshal(body, &r))
	}
	return r
}

// last returns the record of the latest request.
func (w *world) last() rolesanywheretest.Request {
	records := w.Requests()
	return records[len(records)-1]
}

func wantCreated(t *testing.T, w *world, r reply) {
	t.Helper()
	if r.status != http.StatusCreated {
		t.Fatalf("status %d, %s: %s (%s)", r.status, r.errorType, r.Message, w.last().Reason)
	}
}

// answerOf returns an answer in one line.
func answerOf(r reply) string {
	if r.status == http.StatusCreated {
		return "201"
	}
	return fmt.Sprintf("%d %s: %s", r.status, r.errorType, r.Message)
}

func body(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

func base64Of(der []byte) string { return base64.StdEncoding.EncodeToString(der) }
