package rolesanywhere_test

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// newShortLab is a lab whose sessions last as long as asked for here, in whole
// seconds, and that is as far away as latency.
func newShortLab(t *testing.T, session, latency time.Duration) *lab {
	t.Helper()
	l := &lab{Server: rolesanywheretest.NewUnstartedServer()}
	l.MinSession, l.Latency = time.Second, latency
	l.Start()
	t.Cleanup(l.Close)
	ca, err := enroll.NewCA(newKey(t, "ec-p256"), enroll.CAOptions{Subject: pkix.Name{CommonName: "Lab CA"}})
	if err != nil {
		t.Fatal(err)
	}
	l.ca = ca
	if l.in.TrustAnchorARN, err = l.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "lab", Certificates: certificates(ca)}); err != nil {
		t.Fatal(err)
	}
	l.in.RoleARN = l.AddRole(rolesanywheretest.Role{Name: "edge"})
	l.in.ProfileARN = l.AddProfile(rolesanywheretest.Profile{Name: "edge", RoleARNs: []string{l.in.RoleARN}, Duration: session})
	return l
}

func (l *lab) provider(t *testing.T, options ...func(*rolesanywhere.ProviderOptions)) *rolesanywhere.Provider {
	t.Helper()
	p := rolesanywhere.NewProvider(l.client(t, l.identity(t, "ec-p256"), rolesanywhere.Options{}), l.in, options...)
	t.Cleanup(func() { p.Close() })
	return p
}

func retryEvery(d time.Duration) func(*rolesanywhere.ProviderOptions) {
	return func(o *rolesanywhere.ProviderOptions) { o.RetryInterval, o.MaxRetryDelay = d, d }
}

func TestProviderSharesOneCall(t *testing.T) {
	l := newShortLab(t, time.Hour, 100*time.Millisecond)
	p := l.provider(t)
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Retrieve(impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("did not give up:", err)
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if c, err := p.Retrieve(t.Context()); err != nil || !c.HasKeys() || c.Expired() {
				t.Error(redact(c), err)
			}
		})
	}
	wg.Wait()
	if n := l.RequestCount(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// Through three renewals and more, nobody waits, nobody gets what has expired
// or is of two sessions, and there is one call a session.
func TestProviderRenewsAhead(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(*rolesanywhere.Provider) aws.CredentialsProvider{
		"alone":       func(p *rolesanywhere.Provider) aws.CredentialsProvider { return p },
		"under cache": func(p *rolesanywhere.Provider) aws.CredentialsProvider { return aws.NewCredentialsCache(p) },
		"under cache with a window": func(p *rolesanywhere.Provider) aws.CredentialsProvider {
			return aws.NewCredentialsCache(p, func(o *aws.CredentialsCacheOptions) {
				o.ExpiryWindow, o.ExpiryWindowJitterFrac = 5*time.Minute, 0.5
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newShortLab(t, 3*time.Second, 300*time.Millisecond)
			p := wrap(l.provider(t))
			if _, err := p.Retrieve(t.Context()); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
						asked := time.Now()
						c, err := p.Retrieve(t.Context())
						if took := time.Since(asked); err != nil || took > 150*time.Millisecond {
							t.Errorf("after %v: %v", took, err)
							return
						}
						s, ok := l.Session(c.AccessKeyID)
						if !ok || s.SecretAccessKey != c.SecretAccessKey || s.SessionToken != c.SessionToken || asked.After(s.Expiration) {
							t.Errorf("%s: mixed or expired", c.AccessKeyID)
							return
						}
					}
				})
			}
			wg.Wait()
			// A session is renewed 1.2 to 1.8 s after it was made.
			if n := l.RequestCount(); n < 4 || n > 8 {
				t.Errorf("%d requests in 7 s of sessions of 3 s", n)
			}
		})
	}
}

func TestProviderStopsWhenNobodyAsks(t *testing.T) {
	t.Parallel()
	l := newShortLab(t, 2*time.Second, 0)
	p := l.provider(t)
	for range 2 { // the second time after all has expired
		before := l.RequestCount()
		if c, err := p.Retrieve(t.Context()); err != nil || c.Expired() {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := l.RequestCount() - before; n != 2 {
			t.Errorf("%d requests for one that was asked for", n)
		}
	}
}

func TestProviderWhileAWSIsAway(t *testing.T) {
	t.Parallel()
	l := newShortLab(t, 4*time.Second, 0)
	p := l.provider(t, retryEvery(500*time.Millisecond))
	first, err := p.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.SetFault(rolesanywheretest.Status500)
	for time.Until(first.Expires) > 20*time.Millisecond {
		c, err := p.Retrieve(t.Context())
		if err != nil || c.AccessKeyID != first.AccessKeyID || !c.Expires.Equal(first.Expires) {
			t.Fatalf("%v before the end: %v", time.Until(first.Expires), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Until(first.Expires))
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if c, err := p.Retrieve(t.Context()); !errors.Is(err, rolesanywhere.ErrServiceFault) || c.HasKeys() {
			t.Fatal("expired credentials, or not the reason:", err)
		}
	}
	if n := l.RequestCount(); n < 5 || n > 10 {
		t.Errorf("%d requests, two a second at most", n)
	}
	l.SetFault("")
	back := time.Now()
	for time.Since(back) < 5*time.Second {
		if _, err = p.Retrieve(t.Context()); err == nil {
			break
		}
		if !strings.Contains(err.Error(), "next try in") {
			t.Error(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(back); err != nil || took > 800*time.Millisecond {
		t.Errorf("back after %v: %v", took, err)
	}
}

func TestProviderClose(t *testing.T) {
	l := newShortLab(t, time.Second, 0)
	p := l.provider(t)
	c, err := p.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	l.SetFault(rolesanywheretest.Hang)
	time.Sleep(700 * time.Millisecond) // a renewal is under way
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if again, err := p.Retrieve(t.Context()); time.Now().Before(c.Expires) && (err != nil || again.AccessKeyID != c.AccessKeyID) {
		t.Error("what is left is not handed out:", err)
	}
	time.Sleep(time.Until(c.Expires))
	if _, err := p.Retrieve(t.Context()); err == nil {
		t.Error("a closed provider made a session")
	}
	for deadline := time.Now().Add(3 * time.Second); runtime.NumGoroutine() > before+2 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > before+2 {
		t.Errorf("%d goroutines, %d before", now, before)
	}
}

func TestProviderAdjustsExpiry(t *testing.T) {
	l := newLab(t)
	p := l.provider(t)
	c, err := p.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for by, least := range map[time.Duration]time.Duration{-time.Minute: 58 * time.Minute, -50 * time.Minute: 38 * time.Minute, 0: 59 * time.Minute, time.Hour: 59 * time.Minute} {
		got, err := p.AdjustExpiresBy(c, by)
		if left := time.Until(got.Expires); err != nil || left < least || got.Expires.After(c.Expires) {
			t.Errorf("by %v: %v left, %v", by, left, err)
		}
	}
	forever := aws.Credentials{AccessKeyID: "x"}
	if got, err := p.AdjustExpiresBy(forever, -time.Minute); got != forever || err != nil {
		t.Error(got, err)
	}
}
