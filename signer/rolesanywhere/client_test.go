package rolesanywhere_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

// lab is a Roles Anywhere endpoint with an anchor, a role and a profile.
type lab struct {
	*rolesanywheretest.Server
	ca *enroll.CA
	in rolesanywhere.SessionInput
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{Server: rolesanywheretest.NewServer()}
	t.Cleanup(l.Close)
	ca, err := enroll.NewCA(newKey(t, "ec-p256"), enroll.CAOptions{Subject: pkix.Name{CommonName: "Lab CA"}})
	if err != nil {
		t.Fatal(err)
	}
	l.ca = ca
	l.in.TrustAnchorARN, err = l.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "lab", Certificates: certificates(ca)})
	if err != nil {
		t.Fatal(err)
	}
	l.in.RoleARN = l.AddRole(rolesanywheretest.Role{Name: "edge"})
	l.in.ProfileARN = l.AddProfile(rolesanywheretest.Profile{Name: "edge", RoleARNs: []string{l.in.RoleARN}})
	return l
}

func newKey(t *testing.T, algorithm string) crypto.Signer {
	t.Helper()
	key, err := software.Generate(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (l *lab) identity(t *testing.T, algorithm string) *signer.Identity {
	t.Helper()
	key := newKey(t, algorithm)
	leaf, err := l.ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "edge-17", Organization: []string{"Acme"}}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := signer.New(key, leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// quick retries as the standard retryer does, without its waits.
func quick() aws.RetryerV2 {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return time.Millisecond, nil })
	})
}

func (l *lab) client(t *testing.T, id *signer.Identity, o rolesanywhere.Options) *rolesanywhere.Client {
	t.Helper()
	if o.Endpoint == "" {
		o.Endpoint = l.URL
	}
	if o.Retryer == nil {
		o.Retryer = quick()
	}
	c, err := rolesanywhere.New(id, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCreateSession(t *testing.T) {
	l := newLab(t)
	for _, algorithm := range []string{"rsa-2048", "rsa-3072", "ec-p256", "ec-p384", "ec-p521", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"} {
		t.Run(algorithm, func(t *testing.T) {
			id := l.identity(t, algorithm)
			s, err := l.client(t, id, rolesanywhere.Options{}).CreateSession(t.Context(), l.in)
			if err != nil {
				t.Fatal(err, signer.Hint(err))
			}
			issued, ok := l.Session(s.Credentials.AccessKeyID)
			if !ok {
				t.Fatalf("the endpoint knows no session %s", s.Credentials.AccessKeyID)
			}
			if s.Credentials.AccountID != "123456789012" || !s.Credentials.CanExpire || s.Credentials.Source != rolesanywhere.ProviderName {
				t.Errorf("credentials %+v", redact(s.Credentials))
			}
			if want := fmt.Sprintf("arn:aws:sts::123456789012:assumed-role/edge/%x", id.Certificate().SerialNumber); s.AssumedRoleARN != want {
				t.Errorf("assumed role %s, want %s", s.AssumedRoleARN, want)
			}
			if s.SourceIdentity != "CN=edge-17" || s.SubjectARN == "" || s.RequestID == "" || s.AssumedRoleID == "" || s.RoleARN != l.in.RoleARN {
				t.Errorf("session %+v of %+v", s.AssumedRoleARN, issued)
			}
		})
	}
}

func redact(c aws.Credentials) aws.Credentials {
	c.SecretAccessKey, c.SessionToken = "…", "…"
	return c
}

func TestChainIsCleanedAndSent(t *testing.T) {
	l := newLab(t)
	midKey, lowKey, leafKey := newKey(t, "ec-p384"), newKey(t, "rsa-2048"), newKey(t, "ec-p256")
	midCert, err := l.ca.SignCA(midKey.Public(), enroll.CAOptions{Subject: pkix.Name{CommonName: "Middle"}})
	if err != nil {
		t.Fatal(err)
	}
	mid := &enroll.CA{Certificate: midCert, Key: midKey}
	lowCert, err := mid.SignCA(lowKey.Public(), enroll.CAOptions{Subject: pkix.Name{CommonName: "Low"}})
	if err != nil {
		t.Fatal(err)
	}
	low := &enroll.CA{Certificate: lowCert, Key: lowKey}
	leaf, err := low.Issue(leafKey.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "edge"}})
	if err != nil {
		t.Fatal(err)
	}
	stranger := l.identity(t, "ec-p256").Certificate()
	// The wrong order, the root, the leaf and a stranger among them.
	id, err := signer.New(leafKey, leaf, certificatesOf(stranger, midCert, l.ca.Certificate, leaf, lowCert, midCert))
	if err != nil {
		t.Fatal(err)
	}
	chain := id.Chain()
	if len(chain) != 2 || !chain[0].Equal(lowCert) || !chain[1].Equal(midCert) {
		t.Fatalf("chain of %d certificates: %v", len(chain), chain)
	}
	if _, err := l.client(t, id, rolesanywhere.Options{}).CreateSession(t.Context(), l.in); err != nil {
		t.Fatal(err)
	}
	bare, err := signer.New(leafKey, leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.client(t, bare, rolesanywhere.Options{}).CreateSession(t.Context(), l.in); !errors.Is(err, rolesanywhere.ErrUntrusted) {
		t.Errorf("without its chain: %v, want ErrUntrusted", err)
	}
}

func TestPassingFaults(t *testing.T) {
	for _, f := range []rolesanywheretest.Fault{
		rolesanywheretest.Status500, rolesanywheretest.Status503, rolesanywheretest.Status429,
		rolesanywheretest.Drop, rolesanywheretest.Empty, rolesanywheretest.Truncated, rolesanywheretest.Hang,
	} {
		t.Run(string(f), func(t *testing.T) {
			l := newLab(t)
			l.Inject(f, f)
			c := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{AttemptTimeout: 300 * time.Millisecond})
			s, err := c.CreateSession(t.Context(), l.in)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := l.Session(s.Credentials.AccessKeyID); !ok {
				t.Error("credentials that the endpoint did not issue")
			}
			if n := len(l.Requests()); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

func TestSlowAnswer(t *testing.T) {
	l := newLab(t)
	l.Inject(rolesanywheretest.Slow(200 * time.Millisecond))
	if _, err := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{}).CreateSession(t.Context(), l.in); err != nil {
		t.Fatal(err)
	}
}

func TestLastingFaults(t *testing.T) {
	for _, c := range []struct {
		fault    rolesanywheretest.Fault
		kind     error
		text     string
		requests int
	}{
		{rolesanywheretest.Status500, rolesanywhere.ErrServiceFault, "500", 3},
		{rolesanywheretest.Status503, rolesanywhere.ErrServiceFault, "503", 3},
		{rolesanywheretest.Status429, rolesanywhere.ErrThrottled, "429", 3},
		{rolesanywheretest.Drop, rolesanywhere.ErrUnreachable, "EOF", 3},
		{rolesanywheretest.Hang, rolesanywhere.ErrUnreachable, "no answer within", 3},
		{rolesanywheretest.Empty, rolesanywhere.ErrUnexpectedAnswer, "0 bytes that hold no credentials", 3},
		{rolesanywheretest.Truncated, rolesanywhere.ErrUnreachable, "EOF", 3},
		{rolesanywheretest.HTML, rolesanywhere.ErrIntercepted, "web page", 1},
		{rolesanywheretest.Redirect, rolesanywhere.ErrIntercepted, "redirects to", 1},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			l := newLab(t)
			l.SetFault(c.fault)
			cl := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{AttemptTimeout: 200 * time.Millisecond})
			_, err := cl.CreateSession(t.Context(), l.in)
			if !errors.Is(err, c.kind) {
				t.Fatalf("%v, want %v", err, c.kind)
			}
			if !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") || signer.Hint(err) == "" {
				t.Errorf("error %q, hint %q; want one line with %q, and a hint", err, signer.Hint(err), c.text)
			}
			if n := len(l.Requests()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
		})
	}
}

func TestTotalDeadline(t *testing.T) {
	l := newLab(t)
	l.SetFault(rolesanywheretest.Hang)
	c := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{Timeout: 250 * time.Millisecond})
	_, err := c.CreateSession(t.Context(), l.in)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "250ms") {
		t.Errorf("%v, want a deadline of 250ms", err)
	}
}

func TestCancel(t *testing.T) {
	l := newLab(t)
	l.SetFault(rolesanywheretest.Hang)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{}).CreateSession(ctx, l.in)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

func TestNothingListens(t *testing.T) {
	l := newLab(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{Endpoint: "http://" + closed.Addr().String()})
	_, err = c.CreateSession(t.Context(), l.in)
	if !errors.Is(err, rolesanywhere.ErrUnreachable) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

func TestClockSkewIsNamed(t *testing.T) {
	for _, ahead := range []time.Duration{30 * time.Minute, -30 * time.Minute} {
		l := newLab(t)
		c := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{Now: func() time.Time { return time.Now().Add(ahead) }})
		_, err := c.CreateSession(t.Context(), l.in)
		if ahead < 0 {
			// The certificate is younger than that: said before anything is sent.
			if !errors.Is(err, rolesanywhere.ErrCertificateNotYetValid) || !strings.Contains(signer.Hint(err), "clock") {
				t.Errorf("%v (%s)", err, signer.Hint(err))
			}
			continue
		}
		if !errors.Is(err, rolesanywhere.ErrClockSkew) || !strings.Contains(err.Error(), "ahead of AWS's") {
			t.Errorf("%v, want the skew", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		kind error
		set  func(l *lab)
	}{
		{"untrusted", rolesanywhere.ErrUntrusted, func(l *lab) {
			other := newLab(t)
			l.must(l.UpdateTrustAnchor(l.in.TrustAnchorARN, func(a *rolesanywheretest.TrustAnchor) { a.Certificates = certificates(other.ca) }))
		}},
		{"session name", rolesanywhere.ErrSessionNameForbidden, func(l *lab) { l.in.RoleSessionName = "me" }},
		{"trust policy", rolesanywhere.ErrAssumeRoleRefused, func(l *lab) {
			l.must(l.UpdateRole(l.in.RoleARN, func(r *rolesanywheretest.Role) { r.Trust.DenyTagSession = true }))
		}},
		{"no such anchor", rolesanywhere.ErrTrustAnchorNotFound, func(l *lab) {
			l.in.TrustAnchorARN = "arn:aws:rolesanywhere:us-east-1:123456789012:trust-anchor/00000000-0000-0000-0000-000000000000"
		}},
		{"no such profile", rolesanywhere.ErrProfileNotFound, func(l *lab) {
			l.in.ProfileARN = "arn:aws:rolesanywhere:us-east-1:123456789012:profile/00000000-0000-0000-0000-000000000000"
		}},
		{"role not in profile", rolesanywhere.ErrRoleNotInProfile, func(l *lab) {
			l.in.RoleARN = l.AddRole(rolesanywheretest.Role{Name: "other"})
		}},
		{"duration", rolesanywhere.ErrDurationExceedsRole, func(l *lab) {
			l.must(l.UpdateProfile(l.in.ProfileARN, func(p *rolesanywheretest.Profile) { p.Duration = 12 * time.Hour }))
			l.in.Duration = 12 * time.Hour
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			id := l.identity(t, "ec-p256")
			c.set(l)
			_, err := l.client(t, id, rolesanywhere.Options{}).CreateSession(t.Context(), l.in)
			var refusal *rolesanywhere.Error
			if !errors.Is(err, c.kind) || !errors.As(err, &refusal) {
				t.Fatalf("%v, want %v", err, c.kind)
			}
			if refusal.ErrorCode() == "" || refusal.RequestID == "" || signer.Hint(err) == "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v, hint %q", refusal, signer.Hint(err))
			}
			if n := len(l.Requests()); n != 1 {
				t.Errorf("a refusal was tried %d times", n)
			}
		})
	}
}

func TestRevoked(t *testing.T) {
	l := newLab(t)
	id := l.identity(t, "ec-p256")
	crl, err := l.ca.CRL(enroll.Revoked(id.Certificate()), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l.must(l.ImportCRL(l.in.TrustAnchorARN, pemCRL(crl)))
	if _, err := l.client(t, id, rolesanywhere.Options{}).CreateSession(t.Context(), l.in); !errors.Is(err, rolesanywhere.ErrRevoked) {
		t.Errorf("%v, want ErrRevoked", err)
	}
}

func TestBadInputIsNotSent(t *testing.T) {
	l := newLab(t)
	c := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{})
	for name, change := range map[string]func(*rolesanywhere.SessionInput){
		"no anchor":       func(in *rolesanywhere.SessionInput) { in.TrustAnchorARN = "" },
		"swapped ARNs":    func(in *rolesanywhere.SessionInput) { in.ProfileARN, in.RoleARN = in.RoleARN, in.ProfileARN },
		"no ARN":          func(in *rolesanywhere.SessionInput) { in.RoleARN = "edge" },
		"too short":       func(in *rolesanywhere.SessionInput) { in.Duration = time.Minute },
		"too long":        func(in *rolesanywhere.SessionInput) { in.Duration = 13 * time.Hour },
		"half seconds":    func(in *rolesanywhere.SessionInput) { in.Duration = 1000500 * time.Millisecond },
		"session name":    func(in *rolesanywhere.SessionInput) { in.RoleSessionName = "two words" },
		"one-letter name": func(in *rolesanywhere.SessionInput) { in.RoleSessionName = "x" },
		"regions disagree": func(in *rolesanywhere.SessionInput) {
			in.ProfileARN = strings.Replace(in.ProfileARN, "us-east-1", "eu-west-1", 1)
		},
		"anchor of another": func(in *rolesanywhere.SessionInput) { in.TrustAnchorARN = "arn:aws:s3:::bucket" },
	} {
		in := l.in
		change(&in)
		_, err := c.CreateSession(t.Context(), in)
		if !errors.Is(err, rolesanywhere.ErrInput) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want ErrInput on one line", name, err)
		}
	}
	if n := len(l.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// countingKey counts signatures.
type countingKey struct {
	crypto.Signer
	n int
}

func (k *countingKey) SignMessage(_ io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	k.n++
	return crypto.SignMessage(k.Signer, rand.Reader, message, o)
}

func TestRetriesCostOneSignature(t *testing.T) {
	l := newLab(t)
	l.Inject(rolesanywheretest.Status500, rolesanywheretest.Drop)
	key := &countingKey{Signer: newKey(t, "ec-p256")}
	leaf, err := l.ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "edge"}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := signer.New(key, leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.client(t, id, rolesanywhere.Options{}).CreateSession(t.Context(), l.in); err != nil {
		t.Fatal(err)
	}
	if key.n != 1 {
		t.Errorf("%d signatures for one session, want 1", key.n)
	}
}

func TestDebugLogHoldsNoSecret(t *testing.T) {
	l := newLab(t)
	l.Inject(rolesanywheretest.Status500)
	var log bytes.Buffer
	c := l.client(t, l.identity(t, "rsa-2048"), rolesanywhere.Options{
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	s, err := c.CreateSession(t.Context(), l.in)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"canonicalRequest", "status=\"201 Created\"", "retry"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for _, secret := range []string{s.Credentials.SecretAccessKey, s.Credentials.SessionToken, "Signature="} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds a secret:\n%s", log.String())
		}
	}
}

func TestProviderUnderSDKCache(t *testing.T) {
	l := newLab(t)
	provider := rolesanywhere.NewProvider(l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{}), l.in)
	cache := aws.NewCredentialsCache(provider)
	for range 3 {
		c, err := cache.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !c.HasKeys() || c.Expired() {
			t.Errorf("credentials %+v", redact(c))
		}
	}
	if n := len(l.Requests()); n != 1 {
		t.Errorf("%d sessions for one cache", n)
	}
}

func TestTLS(t *testing.T) {
	l := newLab(t)
	srv := rolesanywheretest.NewTLSServer()
	t.Cleanup(srv.Close)
	id := l.identity(t, "ec-p256")
	o := rolesanywhere.Options{Endpoint: srv.URL}
	_, err := l.client(t, id, o).CreateSession(t.Context(), l.in)
	if !errors.Is(err, rolesanywhere.ErrUnreachable) || !strings.Contains(signer.Hint(err), "AWS_CA_BUNDLE") {
		t.Errorf("an unknown server: %v (%s)", err, signer.Hint(err))
	}
	for name, transport := range map[string]*http.Transport{
		"trusted":    rolesanywhere.NewTransport(rolesanywhere.TransportOptions{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}),
		"unverified": rolesanywhere.NewTransport(rolesanywhere.TransportOptions{InsecureSkipVerify: true}),
	} {
		o.Transport = transport
		_, err := l.client(t, id, o).CreateSession(t.Context(), l.in)
		if !errors.Is(err, rolesanywhere.ErrTrustAnchorNotFound) { // that server knows none
			t.Errorf("%s: %v", name, err)
		}
		transport.CloseIdleConnections()
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	l := newLab(t)
	old := rolesanywheretest.NewUnstartedServer()
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // the point of the test
	old.StartTLS()
	t.Cleanup(old.Close)
	transport := rolesanywhere.NewTransport(rolesanywhere.TransportOptions{InsecureSkipVerify: true})
	t.Cleanup(transport.CloseIdleConnections)
	c := l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{Endpoint: old.URL, Transport: transport})
	if _, err := c.CreateSession(t.Context(), l.in); !errors.Is(err, rolesanywhere.ErrUnreachable) || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v", err)
	}
	if n := len(old.Requests()); n != 0 {
		t.Errorf("%d requests over TLS 1.1", n)
	}
}

func (l *lab) must(err error) {
	if err != nil {
		panic(err)
	}
}
