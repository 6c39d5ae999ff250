package metadata

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func TestRefreshAt(t *testing.T) {
	taken := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ life, late, early time.Duration }{ // life left at the refresh
		{2 * time.Second, time.Second, 1100 * time.Millisecond},
		{15 * time.Minute, 450 * time.Second, 495 * time.Second},
		{30 * time.Minute, 20 * time.Minute, 21*time.Minute + 30*time.Second},
		{40 * time.Minute, 27 * time.Minute, 29 * time.Minute},
		{time.Hour, 30 * time.Minute, 33 * time.Minute},
		{90 * time.Minute, 45 * time.Minute, 49*time.Minute + 30*time.Second},
		{12 * time.Hour, 65 * time.Minute, 101 * time.Minute},
	} {
		expires := taken.Add(c.life)
		if left := expires.Sub(refreshAt(taken, expires, 0)); left != c.late {
			t.Errorf("life %v: refreshed with %v left, want %v", c.life, left, c.late)
		}
		if left := expires.Sub(refreshAt(taken, expires, 1)); left != c.early {
			t.Errorf("life %v: refreshed with %v left at most, want %v", c.life, left, c.early)
		}
	}
}

func TestBackOff(t *testing.T) {
	for failures := 1; failures < 100; failures++ {
		for _, left := range []time.Duration{-time.Second, 0, time.Second, time.Minute, time.Hour} {
			longest, shortest := backOff(failures, left, 0), backOff(failures, left, 1)
			if shortest <= 5*time.Second || longest > lastBackOff || shortest >= longest || left > 24*time.Second && longest > left/4 {
				t.Errorf("after %d failures, %v left: %v to %v", failures, left, shortest, longest)
			}
		}
	}
}

// Sixty-four clients over a session's whole life. In a bubble's time, what a
// request takes is exactly what it waits.
func TestClientsNeverWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		aws := newAccount(t, time.Hour)
		aws.Latency = 300 * time.Millisecond
		s := newStation(t, RoleOptions{Fetch: aws.fetch})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.role.Run(ctx) })

		const clients, every = 64, 2 * time.Second
		end := time.Now().Add(70 * time.Minute) // two refreshes of sessions of an hour
		seen := make([]map[string]bool, clients)
		var asking sync.WaitGroup
		for i := range clients {
			seen[i] = map[string]bool{}
			asking.Go(func() {
				token := s.token()
				for n := 0; time.Now().Before(end); n++ {
					start := time.Now()
					w := s.ask("GET", pathCredentials+"/edge", headerToken, token)
					if i%2 == 1 {
						w = s.ask("GET", "/role/edge")
					}
					if took := time.Since(start); n > 0 && took != 0 || took > 300*time.Millisecond {
						t.Errorf("request %d waited %v", n, took)
					}
					if w.Code != http.StatusOK {
						t.Errorf("%d: %s", w.Code, w.Body)
					}
					if id, ok := aws.checkIssued(t, w.Body.Bytes()); ok {
						seen[i][id] = true
					}
					time.Sleep(every)
				}
			})
		}
		asking.Wait()
		cancel()
		running.Wait()
		if n := aws.RequestCount(); n != 3 || s.role.refreshed.Load() != 3 {
			t.Errorf("%d CreateSession for one session and two refreshes, %d of them good", n, s.role.refreshed.Load())
		}
		for i, ids := range seen {
			if len(ids) != 3 {
				t.Errorf("client %d saw %d sessions, want 3", i, len(ids))
			}
		}
	})
}

func TestAWSAway(t *testing.T) {
	for name, fault := range map[string]any{
		"500":     rolesanywheretest.Status500,
		"503":     rolesanywheretest.Status503,
		"429":     rolesanywheretest.Status429,
		"hang":    rolesanywheretest.Hang,
		"drop":    rolesanywheretest.Drop,
		"html":    rolesanywheretest.HTML,
		"refused": &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED},
		"dns":     &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "rolesanywhere.test", IsNotFound: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { awsAway(t, fault) })
		})
	}
}

func awsAway(t *testing.T, fault any) {
	aws := newAccount(t, time.Hour)
	s := newStation(t, RoleOptions{Fetch: aws.fetch})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.role.Run(ctx) })
	defer func() { cancel(); running.Wait() }()
	synctest.Wait()
	expires := s.role.snap.Load().expires
	setFault := func(f any) {
		switch f := f.(type) {
		case rolesanywheretest.Fault:
			aws.SetFault(f)
		case error:
			aws.setAway(f)
		}
	}
	setFault(fault)

	for time.Now().Before(expires.Add(-time.Second)) {
		start := time.Now()
		w := s.ask("GET", "/role/edge")
		if _, ok := aws.checkIssued(t, w.Body.Bytes()); !ok || w.Code != http.StatusOK || !time.Now().Equal(start) {
			t.Fatalf("%v before the end: %d %s", time.Until(expires), w.Code, w.Body)
		}
		time.Sleep(time.Second)
	}
	time.Sleep(time.Until(expires) - time.Millisecond) // the last of their life
	if w := s.ask("GET", "/role/edge"); w.Code != http.StatusOK {
		t.Fatalf("a millisecond before the end: %d %s", w.Code, w.Body)
	}
	time.Sleep(time.Millisecond)
	start := time.Now()
	for range 100 {
		for _, w := range []interface {
			Result() *http.Response
		}{s.ask("GET", "/role/edge"), s.ask("GET", pathCredentials+"/edge", headerToken, s.token())} {
			resp := w.Result()
			if retry, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusServiceUnavailable || err != nil || retry < 1 || retry > 61 {
				t.Fatalf("after the end: %s, Retry-After %v", resp.Status, resp.Header["Retry-After"])
			}
		}
	}
	if !time.Now().Equal(start) {
		t.Error("a refusal waited")
	}
	if w := s.ask("GET", "/role/edge"); !strings.Contains(w.Body.String(), `{"code":"CredentialsUnavailable","message":"no valid credentials for role edge: `) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("no honest reason: %s", w.Body)
	}

	attempts := aws.tried()
	for i, at := range attempts[1:] {
		if i > 0 && at.Sub(attempts[i]) <= 5*time.Second {
			t.Errorf("attempts %v and %v lie %v apart", i, i+1, at.Sub(attempts[i]))
		}
	}
	if n := len(attempts); n < 20 { // half an hour, one a minute
		t.Errorf("only %d attempts", n)
	}

	switch fault.(type) {
	case error:
		aws.setAway(nil)
	default:
		aws.SetFault("")
	}
	back := time.Now()
	for s.ask("GET", "/role/edge").Code != http.StatusOK {
		time.Sleep(time.Second)
	}
	// one step, and the attempt that hung when AWS came back
	if took := time.Since(back); took > lastBackOff+rolesanywhere.DefaultAttemptTimeout+time.Second {
		t.Errorf("recovery took %v", took)
	}
}

func TestFirstRequestWaitsForTheFirstSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		aws := newAccount(t, time.Hour)
		aws.Latency = 300 * time.Millisecond
		s := newStation(t, RoleOptions{Fetch: aws.fetch})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.role.Run(ctx) })
		start := time.Now()
		if w := s.ask("GET", "/role/edge"); w.Code != http.StatusOK || time.Since(start) != 300*time.Millisecond {
			t.Errorf("%d after %v", w.Code, time.Since(start))
		}
		cancel()
		running.Wait()

		// Without anything that runs, it does not wait for ever.
		s = newStation(t, RoleOptions{Fetch: aws.fetch})
		start = time.Now()
		if w := s.ask("GET", "/role/edge"); w.Code != http.StatusServiceUnavailable || time.Since(start) != firstWait {
			t.Errorf("%d after %v", w.Code, time.Since(start))
		}
	})
}

func TestAFailureAnswersWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, RoleOptions{Fetch: func(context.Context) (*rolesanywhere.Session, error) {
			time.Sleep(time.Second)
			return nil, errors.New("the trust policy says no")
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.role.Run(ctx) })
		start := time.Now()
		w := s.ask("GET", "/role/edge")
		if w.Code != http.StatusServiceUnavailable || time.Since(start) != time.Second || !strings.Contains(w.Body.String(), "the trust policy says no") {
			t.Errorf("%d after %v: %s", w.Code, time.Since(start), w.Body)
		}
		cancel()
		running.Wait()
	})
}

func TestSessionThatIsOverIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := newStation(t, RoleOptions{Fetch: func(ctx context.Context) (*rolesanywhere.Session, error) {
			calls++
			session, err := static(ctx)
			if calls > 1 {
				session.Credentials.Expires = time.Now().Add(-time.Second)
			}
			return session, err
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.role.Run(ctx) })
		time.Sleep(59 * time.Minute)
		if w := s.ask("GET", "/role/edge"); w.Code != http.StatusOK {
			t.Errorf("the good session was given up: %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		if w := s.ask("GET", "/role/edge"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "clock") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		cancel()
		running.Wait()
	})
}

func TestInheritAndStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, err := NewRole(RoleOptions{Name: "edge", Fetch: static})
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { old.Run(ctx) })
		synctest.Wait()
		time.Sleep(time.Minute)
		if old.Stuck(time.Minute) {
			t.Error("a waiting role is stuck")
		}

		s := newStation(t, RoleOptions{Fetch: func(ctx context.Context) (*rolesanywhere.Session, error) {
			<-ctx.Done() // a key that does not return
			return nil, ctx.Err()
		}})
		s.role.Inherit(old)
		running.Go(func() { s.role.Run(ctx) })
		time.Sleep(2 * time.Minute)
		if w := s.ask("GET", "/role/edge"); w.Code != http.StatusOK {
			t.Errorf("what was inherited is not served: %d", w.Code)
		}
		if !s.role.Stuck(time.Minute) {
			t.Error("nobody sees that the role is stuck")
		}
		cancel()
		running.Wait()
	})
}

func TestRoleNames(t *testing.T) {
	for name, ok := range map[string]bool{"edge": true, "a+b=c,d.e@f-g_h": true, "": false, "a/b": false, "..": false, ".": false, "a b": false, strings.Repeat("x", 65): false, "é": false} {
		if _, err := NewRole(RoleOptions{Name: name}); (err == nil) != ok {
			t.Error(name, err)
		}
	}
	if err := (&unavailableError{role: "x", err: fmt.Errorf("y")}); err.Unwrap() == nil {
		t.Error("no cause")
	}
}
