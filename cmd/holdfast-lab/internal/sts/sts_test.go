package sts_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/holdfast-iam/holdfast/cmd/holdfast-lab/internal/sts"
)

const region = "eu-central-1"

var (
	session = sts.Credentials{
		AccessKeyID: "ASIAEXAMPLESESSION01", SecretAccessKey: "session/secret+1", SessionToken: "token/of+the==session",
		Expiration: time.Now().Add(time.Hour), ARN: "arn:aws:sts::123456789012:assumed-role/edge/device-1", UserID: "AROAEXAMPLE:device-1",
		SourceIdentity: "CN=device-1",
	}
	expired = sts.Credentials{
		AccessKeyID: "ASIAEXAMPLEEXPIRED01", SecretAccessKey: "expired/secret", SessionToken: "old token",
		Expiration: time.Now().Add(-time.Second), ARN: session.ARN, UserID: session.UserID,
	}
	longLived = sts.Credentials{
		AccessKeyID: "AKIAEXAMPLELONGLIVED", SecretAccessKey: "user/secret",
		ARN: "arn:aws:iam::123456789012:user/admin", UserID: "AIDAEXAMPLE",
	}
	role = sts.Role{ARN: "arn:aws:iam::123456789012:role/team/chained", ID: "AROACHAINED", MaxSessionDuration: 2 * time.Hour}
)

func newServer(t *testing.T) (*sts.Handler, *httptest.Server) {
	t.Helper()
	h := &sts.Handler{
		Region: region,
		Roles:  []sts.Role{role},
		Lookup: func(id string) (sts.Credentials, bool) {
			for _, c := range []sts.Credentials{session, expired, longLived} {
				if c.AccessKeyID == id {
					return c, true
				}
			}
			return sts.Credentials{}, false
		},
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return h, s
}

func newClient(url string, c sts.Credentials) *awssts.Client {
	return awssts.New(awssts.Options{
		Region: region, BaseEndpoint: &url, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken),
	})
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestGetCallerIdentity(t *testing.T) {
	_, s := newServer(t)
	for _, c := range []sts.Credentials{session, longLived} {
		out, err := newClient(s.URL, c).GetCallerIdentity(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if *out.Arn != c.ARN || *out.UserId != c.UserID || *out.Account != "123456789012" {
			t.Errorf("got %s %s %s", *out.Arn, *out.UserId, *out.Account)
		}
	}
}

func TestRefusedCredentials(t *testing.T) {
	_, s := newServer(t)
	with := func(c sts.Credentials, change func(*sts.Credentials)) sts.Credentials { change(&c); return c }
	for name, c := range map[string]struct {
		credentials sts.Credentials
		code        string
	}{
		"unknown key":         {with(session, func(c *sts.Credentials) { c.AccessKeyID = "ASIAUNKNOWN" }), "InvalidClientTokenId"},
		"wrong token":         {with(session, func(c *sts.Credentials) { c.SessionToken += "x" }), "InvalidClientTokenId"},
		"no token":            {with(session, func(c *sts.Credentials) { c.SessionToken = "" }), "InvalidClientTokenId"},
		"token for a user":    {with(longLived, func(c *sts.Credentials) { c.SessionToken = "x" }), "InvalidClientTokenId"},
		"wrong secret":        {with(session, func(c *sts.Credentials) { c.SecretAccessKey += "x" }), "SignatureDoesNotMatch"},
		"expired":             {expired, "ExpiredToken"},
		"expired, wrong also": {with(expired, func(c *sts.Credentials) { c.SecretAccessKey += "x" }), "SignatureDoesNotMatch"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(s.URL, c.credentials).GetCallerIdentity(context.Background(), nil)
			wantCode(t, err, c.code)
		})
	}
	_, err := awssts.New(awssts.Options{Region: region, BaseEndpoint: &s.URL, Credentials: aws.AnonymousCredentials{}}).GetCallerIdentity(context.Background(), nil)
	wantCode(t, err, "MissingAuthenticationToken")
	_, err = awssts.New(awssts.Options{Region: "us-west-2", BaseEndpoint: &s.URL,
		Credentials: credentials.NewStaticCredentialsProvider(session.AccessKeyID, session.SecretAccessKey, session.SessionToken)}).GetCallerIdentity(context.Background(), nil)
	wantCode(t, err, "SignatureDoesNotMatch")
}

func TestAssumeRole(t *testing.T) {
	_, s := newServer(t)
	ctx := context.Background()
	out, err := newClient(s.URL, session).AssumeRole(ctx, &awssts.AssumeRoleInput{RoleArn: &role.ARN, RoleSessionName: aws.String("hop-1")})
	if err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:sts::123456789012:assumed-role/chained/hop-1"
	if *out.AssumedRoleUser.Arn != arn || *out.AssumedRoleUser.AssumedRoleId != "AROACHAINED:hop-1" || *out.SourceIdentity != "CN=device-1" {
		t.Errorf("got %+v, source %s", *out.AssumedRoleUser, *out.SourceIdentity)
	}
	if life := time.Until(*out.Credentials.Expiration); life > time.Hour || life < 59*time.Minute {
		t.Errorf("life %v", life)
	}
	hop := sts.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}
	who, err := newClient(s.URL, hop).GetCallerIdentity(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *who.Arn != arn || *who.UserId != "AROACHAINED:hop-1" {
		t.Errorf("got %s %s", *who.Arn, *who.UserId)
	}
	again, err := newClient(s.URL, hop).AssumeRole(ctx, &awssts.AssumeRoleInput{RoleArn: &role.ARN, RoleSessionName: aws.String("hop-2"), DurationSeconds: aws.Int32(900)})
	if err != nil {
		t.Fatal(err)
	}
	if life := time.Until(*again.Credentials.Expiration); life > 15*time.Minute || *again.SourceIdentity != "CN=device-1" {
		t.Errorf("life %v, source %s", life, *again.SourceIdentity)
	}
	if _, err := newClient(s.URL, longLived).AssumeRole(ctx, &awssts.AssumeRoleInput{RoleArn: &role.ARN, RoleSessionName: aws.String("two-hours"), DurationSeconds: aws.Int32(7200)}); err != nil {
		t.Errorf("two hours for a user: %v", err)
	}
}

func TestAssumeRoleRefusals(t *testing.T) {
	_, s := newServer(t)
	for name, c := range map[string]struct {
		as   sts.Credentials
		in   awssts.AssumeRoleInput
		code string
		text string
	}{
		"another role":     {session, awssts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::123456789012:role/other")}, "AccessDenied", "User: " + session.ARN + " is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::123456789012:role/other"},
		"no ARN":           {session, awssts.AssumeRoleInput{RoleArn: aws.String("role")}, "ValidationError", "roleArn"},
		"session name":     {session, awssts.AssumeRoleInput{RoleSessionName: aws.String("a b")}, "ValidationError", "roleSessionName"},
		"source identity":  {session, awssts.AssumeRoleInput{SourceIdentity: aws.String("other")}, "AccessDenied", "SetSourceIdentity"},
		"too short":        {session, awssts.AssumeRoleInput{DurationSeconds: aws.Int32(899)}, "ValidationError", "greater than or equal to 900"},
		"too long":         {session, awssts.AssumeRoleInput{DurationSeconds: aws.Int32(43201)}, "ValidationError", "less than or equal to 43200"},
		"chained too long": {session, awssts.AssumeRoleInput{DurationSeconds: aws.Int32(3601)}, "ValidationError", "role chaining"},
		"role's maximum":   {longLived, awssts.AssumeRoleInput{DurationSeconds: aws.Int32(7201)}, "ValidationError", "MaxSessionDuration"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.in.RoleArn == nil {
				c.in.RoleArn = &role.ARN
			}
			if c.in.RoleSessionName == nil {
				c.in.RoleSessionName = aws.String("name")
			}
			_, err := newClient(s.URL, c.as).AssumeRole(context.Background(), &c.in)
			wantCode(t, err, c.code)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

// do sends a request and returns status and body.
func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("x-amzn-RequestId") == "" || !strings.Contains(string(body), res.Header.Get("x-amzn-RequestId")) {
		t.Errorf("the request id is not in header and body: %s", body)
	}
	return res.StatusCode, string(body)
}

const form = "Action=GetCallerIdentity&Version=2011-06-15"

// signed returns a POST signed by the SDK's own signer after prepare, at an
// offset from now.
func signed(t *testing.T, base, body string, offset time.Duration, prepare func(*http.Request)) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, base+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if prepare != nil {
		prepare(r)
	}
	sum := sha256.Sum256([]byte(body))
	err = v4.NewSigner().SignHTTP(context.Background(), sdk(session), r, hex.EncodeToString(sum[:]), "sts", region, time.Now().Add(offset))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sdk(c sts.Credentials) aws.Credentials {
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}
}

func TestTamperedRequests(t *testing.T) {
	_, s := newServer(t)
	edit := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			before := r.Header.Get("Authorization")
			after := strings.Replace(before, old, new, 1)
			if before == after {
				t.Errorf("no %q in %s", old, before)
			}
			r.Header.Set("Authorization", after)
		}
	}
	for name, c := range map[string]struct {
		body    string
		offset  time.Duration
		prepare func(*http.Request)
		tamper  func(*http.Request)
		status  int
		code    string
	}{
		"untouched": {status: 200, code: "GetCallerIdentityResult"},
		"signed headers with odd spaces": {prepare: func(r *http.Request) { r.Header["X-Amz-Meta"] = []string{"a   b", " c "} },
			status: 200, code: "GetCallerIdentityResult"},
		"query too": {prepare: func(r *http.Request) { r.URL.RawQuery = "b=%2F~&a=2&a=1%20x&c" }, status: 200, code: "GetCallerIdentityResult"},
		"body": {tamper: func(r *http.Request) { setBody(r, strings.Replace(form, "Identity", "identity", 1)) },
			status: 403, code: "SignatureDoesNotMatch"},
		"query added":  {tamper: func(r *http.Request) { r.URL.RawQuery = "x=1" }, status: 403, code: "SignatureDoesNotMatch"},
		"host":         {tamper: func(r *http.Request) { r.Host = "sts.amazonaws.com" }, status: 403, code: "SignatureDoesNotMatch"},
		"content type": {tamper: func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, status: 403, code: "SignatureDoesNotMatch"},
		"date": {tamper: func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().UTC().Add(time.Second*2).Format("20060102T150405Z"))
		}, status: 403, code: "SignatureDoesNotMatch"},
		"unsigned x-amz": {tamper: func(r *http.Request) { r.Header.Set("X-Amz-Extra", "1") }, status: 403,
			code: "must be a 'SignedHeader'"},
		"host not signed":   {tamper: edit(";host;", ";"), status: 403, code: "'Host' must be"},
		"token not signed":  {tamper: edit(";x-amz-security-token", ""), status: 403, code: "must be a 'SignedHeader'"},
		"unordered headers": {tamper: edit("content-length;content-type", "content-type;content-length"), status: 403, code: "in order"},
		"absent header":     {tamper: edit("x-amz-date;", "x-amz-absent;x-amz-date;"), status: 403, code: "SignatureDoesNotMatch"},
		"payload hash": {prepare: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64)) }, status: 403,
			code: "x-amz-content-sha256"},
		"payload unsigned": {prepare: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }, status: 403, code: "x-amz-content-sha256"},
		"too old":          {offset: -6 * time.Minute, status: 403, code: "Signature expired"},
		"too new":          {offset: 6 * time.Minute, status: 403, code: "Signature not yet current"},
		"a little old":     {offset: -4 * time.Minute, status: 200, code: "GetCallerIdentityResult"},
		"scope's date":     {tamper: edit("/"+time.Now().UTC().Format("20060102")+"/", "/20000101/"), status: 403, code: "Date in Credential scope"},
		"scope's service":  {tamper: edit("/sts/", "/s3/"), status: 403, code: "correct service"},
		"scope's region":   {tamper: edit("/"+region+"/", "/eu-west-1/"), status: 403, code: "valid region"},
		"scope's end":      {tamper: edit("/aws4_request", "/aws5_request"), status: 403, code: "terminator"},
		"no scope":         {tamper: edit("/sts/aws4_request", ""), status: 400, code: "IncompleteSignature"},
		"algorithm":        {tamper: edit("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), status: 400, code: "IncompleteSignature"},
		"no signature":     {tamper: edit("Signature=", "Sig="), status: 400, code: "IncompleteSignature"},
		"signature twice":  {tamper: edit("Signature=", "Signature=0, Signature="), status: 400, code: "IncompleteSignature"},
		"upper-case signature": {tamper: func(r *http.Request) {
			a, sig, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", a+"Signature="+strings.ToUpper(sig))
		}, status: 403, code: "SignatureDoesNotMatch"},
		"no date":           {tamper: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, status: 400, code: "IncompleteSignature"},
		"two dates":         {tamper: func(r *http.Request) { r.Header.Add("X-Amz-Date", "x") }, status: 400, code: "IncompleteSignature"},
		"two tokens":        {tamper: func(r *http.Request) { r.Header.Add("X-Amz-Security-Token", "x") }, status: 400, code: "IncompleteSignature"},
		"odd date":          {tamper: func(r *http.Request) { r.Header.Set("X-Amz-Date", "yesterday") }, status: 400, code: "ISO-8601"},
		"no authentication": {tamper: func(r *http.Request) { r.Header.Del("Authorization") }, status: 403, code: "MissingAuthenticationToken"},
		"two signatures":    {tamper: func(r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=0" }, status: 400, code: "IncompleteSignature"},
		"path":              {prepare: func(r *http.Request) { r.URL.Path = "/x" }, status: 404, code: "UnknownOperation"},
		"PUT":               {prepare: func(r *http.Request) { r.Method = "PUT" }, status: 405, code: "MalformedInput"},
		"JSON":              {prepare: func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, status: 400, code: "MalformedInput"},
		"unknown action":    {body: "Action=Nothing&Version=2011-06-15", status: 400, code: "Could not find operation Nothing for version 2011-06-15"},
		"no action":         {body: "Version=2011-06-15", status: 400, code: "MissingAction"},
		"no version":        {body: "Action=GetCallerIdentity", status: 400, code: "NO_VERSION_SPECIFIED"},
		"action twice":      {body: form + "&Action=AssumeRole", status: 400, code: "appears twice"},
		"long body":         {body: form + "&x=" + strings.Repeat("x", 300<<10), status: 413, code: "RequestEntityTooLarge"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.body == "" {
				c.body = form
			}
			r := signed(t, s.URL, c.body, c.offset, c.prepare)
			if c.tamper != nil {
				c.tamper(r)
			}
			status, body := do(t, r)
			body = strings.ReplaceAll(body, "&#39;", "'")
			if status != c.status || !strings.Contains(body, c.code) {
				t.Errorf("got %d %s\nwant %d %s", status, body, c.status, c.code)
			}
			if strings.Contains(body, session.SecretAccessKey) {
				t.Error("the answer holds the secret")
			}
		})
	}
}

func setBody(r *http.Request, body string) {
	r.Body = io.NopCloser(bytes.NewReader([]byte(body)))
	r.ContentLength = int64(len(body))
}

func TestPresigned(t *testing.T) {
	_, s := newServer(t)
	presign := func(t *testing.T, expires string, at time.Time) *url.URL {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, s.URL+"/?"+form+"&X-Amz-Expires="+expires, nil)
		if err != nil {
			t.Fatal(err)
		}
		empty := sha256.Sum256(nil)
		signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), sdk(session), r, hex.EncodeToString(empty[:]), "sts", region, at)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	change := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	for name, c := range map[string]struct {
		expires string
		at      time.Duration
		tamper  func(url.Values)
		status  int
		want    string
	}{
		"untouched":      {"60", 0, nil, 200, session.ARN},
		"old, yet good":  {"3600", -50 * time.Minute, nil, 200, session.ARN},
		"expired":        {"60", -2 * time.Minute, nil, 403, "Signature expired"},
		"from tomorrow":  {"60", 24 * time.Hour, nil, 403, "not yet current"},
		"longer life":    {"60", 0, change("X-Amz-Expires", "600"), 403, "SignatureDoesNotMatch"},
		"no life":        {"60", 0, change("X-Amz-Expires", "0"), 400, "X-Amz-Expires"},
		"endless life":   {"604801", 0, nil, 400, "X-Amz-Expires"},
		"action":         {"60", 0, change("Action", "AssumeRole"), 403, "SignatureDoesNotMatch"},
		"added":          {"60", 0, change("x", "y"), 403, "SignatureDoesNotMatch"},
		"token":          {"60", 0, change("X-Amz-Security-Token", "x"), 403, "InvalidClientTokenId"},
		"no token":       {"60", 0, func(q url.Values) { q.Del("X-Amz-Security-Token") }, 403, "InvalidClientTokenId"},
		"no signature":   {"60", 0, func(q url.Values) { q.Del("X-Amz-Signature") }, 400, "X-Amz-Signature"},
		"algorithm":      {"60", 0, change("X-Amz-Algorithm", "none"), 400, "IncompleteSignature"},
		"date repeated":  {"60", 0, func(q url.Values) { q.Add("X-Amz-Date", "x") }, 400, "X-Amz-Date"},
		"token repeated": {"60", 0, func(q url.Values) { q.Add("X-Amz-Security-Token", "x") }, 400, "X-Amz-Security-Token"},
	} {
		t.Run(name, func(t *testing.T) {
			u := presign(t, c.expires, time.Now().Add(c.at))
			if c.tamper != nil {
				q := u.Query()
				c.tamper(q)
				u.RawQuery = q.Encode()
			}
			r, err := http.NewRequest(http.MethodGet, u.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if status, body := do(t, r); status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s\nwant %d %s", status, body, c.status, c.want)
			}
		})
	}

	presigner := awssts.NewPresignClient(newClient(s.URL, session))
	p, err := presigner.PresignGetCallerIdentity(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(p.Method, p.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := do(t, r); status != 200 || !strings.Contains(body, session.ARN) {
		t.Errorf("presigned by the SDK: %d %s", status, body)
	}
}

func TestClockRunsOut(t *testing.T) {
	h, s := newServer(t)
	h.Clock = func() time.Time { return session.Expiration.Add(-time.Second) }
	r := signed(t, s.URL, form, time.Until(session.Expiration), nil)
	if status, body := do(t, r); status != 200 {
		t.Errorf("a second before: %d %s", status, body)
	}
	h.Clock = func() time.Time { return session.Expiration }
	r = signed(t, s.URL, form, time.Until(session.Expiration), nil)
	if status, body := do(t, r); status != 403 || !strings.Contains(body, "ExpiredToken") {
		t.Errorf("at the very second: %d %s", status, body)
	}
}
