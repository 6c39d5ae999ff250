package rolesanywheretest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func TestServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*world){
		"plain": func(w *world) { w.Start() },
		"TLS":   func(w *world) { w.StartTLS() },
		"own listener": func(w *world) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			check(t, err)
			w.Listener = listener
			w.Start()
			if want := "http://" + listener.Addr().String(); w.URL != want {
				t.Errorf("URL %s, want %s", w.URL, want)
			}
		},
		"own TLS configuration": func(w *world) {
			w.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
			w.StartTLS()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if w.Client() != nil || w.Certificate() != nil {
				t.Error("a client or certificate before the start")
			}
			start(w)
			r, err := w.send(t, w.call())
			check(t, err)
			wantCreated(t, w, r)
			if isTLS := strings.HasPrefix(w.URL, "https:"); isTLS != (w.Certificate() != nil) {
				t.Errorf("certificate %v of %s", w.Certificate(), w.URL)
			}
			if got := w.last(); got.RemoteAddr == "" || got.Host == "" || !strings.HasPrefix(got.URL, "/sessions?") || string(got.Body) != `{"durationSeconds":3600}` || !got.Time.Equal(noon) {
				t.Errorf("record %+v", got)
			}
			w.Close()
			w.Close()
			if _, err := w.send(t, w.call()); err == nil {
				t.Error("an answer after Close")
			}
			if w.RequestCount() != 1 || len(w.Requests()) != 1 {
				t.Errorf("%d requests counted, %d kept", w.RequestCount(), len(w.Requests()))
			}
		})
	}
}

func TestConstructors(t *testing.T) {
	t.Parallel()
	for _, s := range []*rolesanywheretest.Server{rolesanywheretest.NewServer(), rolesanywheretest.NewTLSServer()} {
		response, err := s.Client().Post(s.URL+"/sessions", "application/json", strings.NewReader("{}"))
		check(t, err)
		response.Body.Close()
		if got := response.Header.Get("x-amzn-ErrorType"); got != "MissingAuthenticationTokenException" {
			t.Errorf("error type %s", got)
		}
		s.Close()
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault     rolesanywheretest.Fault
		status    int
		errorType string
		isBroken  bool // the client gets an error
		body      string
	}{
		{rolesanywheretest.Status500, 500, "InternalServerException", false, `{"message":"Internal server error"}`},
		{rolesanywheretest.Status503, 503, "ServiceUnavailableException", false, `{"message":"Service is temporarily unavailable"}`},
		{rolesanywheretest.Status429, 429, "ThrottlingException", false, `{"message":"Rate exceeded"}`},
		{rolesanywheretest.Drop, 0, "", true, ""},
		{rolesanywheretest.HTML, 200, "", false, "<!DOCTYPE html>"},
		{rolesanywheretest.Empty, 201, "", false, ""},
		{rolesanywheretest.Truncated, 201, "", true, `{"credentialSet"`},
		{rolesanywheretest.Redirect, 302, "", false, ""},
		{rolesanywheretest.Slow(16 * time.Millisecond), 201, "", false, `{"credentialSet"`},
		{rolesanywheretest.SkewedDate(time.Hour), 201, "", false, `{"credentialSet"`},
		{"", 201, "", false, `{"credentialSet"`},
	} {
		t.Run(string(test.fault), func(t *testing.T) {
			t.Parallel()
			if _, err := rolesanywheretest.ParseFault(string(test.fault)); err != nil {
				t.Error(err)
			}
			w := newWorld(t)
			w.Start()
			w.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			w.Inject(test.fault)
			r, err := w.send(t, w.call())
			if (err != nil) != test.isBroken || r.status != test.status || r.errorType != test.errorType || !strings.HasPrefix(string(r.body), test.body) {
				t.Errorf("error %v, status %d, type %q, body %.60q", err, r.status, r.errorType, r.body)
			}
			date, want := r.header.Get("Date"), noon
			if test.fault == rolesanywheretest.SkewedDate(time.Hour) {
				want = noon.Add(time.Hour)
			}
			if r.status/100 != 3 && test.fault != rolesanywheretest.HTML && r.header != nil && date != want.Format(http.TimeFormat) {
				t.Errorf("Date %s, want %s", date, want.Format(http.TimeFormat))
			}
			record := w.last()
			if record.Fault != test.fault || record.Status != 201 || record.AccessKeyID == "" {
				t.Errorf("recorded fault %q, status %d, key %q", record.Fault, record.Status, record.AccessKeyID)
			}
			r, err = w.send(t, w.call()) // the fault was consumed
			check(t, err)
			wantCreated(t, w, r)
		})
	}
}

func TestSetFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.SetFault(rolesanywheretest.Status503)
	w.Inject("", rolesanywheretest.Status500)
	var got []int
	for range 4 {
		got = append(got, w.do(t, w.call()).status)
	}
	w.SetFault("")
	got = append(got, w.do(t, w.call()).status)
	for i, want := range []int{201, 500, 503, 503, 201} {
		if got[i] != want {
			t.Fatalf("statuses %v", got)
		}
	}
}

func TestParseFaultRefusals(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"404", "slow", "slow=", "slow=-1s", "drop=1s", "Drop", "skewed-date=x"} {
		if f, err := rolesanywheretest.ParseFault(text); err == nil {
			t.Errorf("%q passes as %q", text, f)
		}
	}
}

// TestCloseCutsOff closes servers while an answer is being waited for, and
// finds that nothing goes on afterwards.
func TestCloseCutsOff(t *testing.T) { // not parallel: it looks at the goroutines of the process
	for name, arrange := range map[string]func(*world){
		"hang":    func(w *world) { w.SetFault(rolesanywheretest.Hang) },
		"slow":    func(w *world) { w.SetFault(rolesanywheretest.Slow(time.Hour)) },
		"latency": func(w *world) { w.Latency = time.Hour },
	} {
		for _, start := range []func(*rolesanywheretest.Server){(*rolesanywheretest.Server).Start, (*rolesanywheretest.Server).StartTLS} {
			w := newWorld(t)
			arrange(w)
			start(w.Server)
			failed := make(chan error)
			go func() {
				_, err := w.send(t, w.call())
				failed <- err
			}()
			for w.RequestCount() == 0 {
				runtime.Gosched()
			}
			w.Close()
			if err := <-failed; err == nil {
				t.Errorf("%s: an answer came", name)
			}
			wantNoGoroutines(t)
		}
	}
}

func TestClientLeaves(t *testing.T) { // not parallel, as above
	w := newWorld(t)
	w.SetFault(rolesanywheretest.Hang)
	w.Start()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		c := w.call()
		c.host = strings.TrimPrefix(w.URL, "http://")
		response, err := w.Client().Do(c.request().WithContext(ctx))
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	for w.RequestCount() == 0 {
		runtime.Gosched()
	}
	cancel()
	group.Wait()
	w.Close()
	wantNoGoroutines(t)
}

// wantNoGoroutines fails if a goroutine of a server or its client does not
// end soon.
func wantNoGoroutines(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !strings.Contains(string(stacks), "net/http.") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines left:\n%s", stacks)
		}
		runtime.Gosched()
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Start()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			r, err := w.send(t, w.callBy(w.leaf))
			if err != nil || r.status != 201 {
				t.Errorf("status %d, error %v", r.status, err)
			}
		})
		group.Go(func() {
			_ = w.UpdateProfile(w.profile, func(p *rolesanywheretest.Profile) { p.Name += "x" })
			_ = w.UpdateTrustAnchor(w.anchor, func(a *rolesanywheretest.TrustAnchor) { a.Name += "x" })
			_ = w.Requests()
		})
	}
	group.Wait()
	if got := w.RequestCount(); got != 8 {
		t.Errorf("%d requests", got)
	}
}
