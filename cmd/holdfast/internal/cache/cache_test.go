package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/cache/flock"
)

func entry(created time.Time, life time.Duration) Entry {
	return Entry{
		RoleARN: "arn:aws:iam::123456789012:role/edge", AccountID: "123456789012",
		AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "sesame-secret", SessionToken: "sesame-token",
		Created: created, Expires: created.Add(life),
	}
}

func newCache(t *testing.T) *Cache {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &Cache{Store: &Files{dir}, LockDir: dir, Log: slog.New(slog.DiscardHandler)}
}

func TestWindow(t *testing.T) {
	for _, c := range []struct{ session, window time.Duration }{
		{12 * time.Hour, 61 * time.Minute},
		{90 * time.Minute, 61 * time.Minute},
		{time.Hour, 16 * time.Minute},
		{21 * time.Minute, 16 * time.Minute},
		{20 * time.Minute, 6 * time.Minute},
		{15 * time.Minute, 6 * time.Minute},
		{time.Minute, 30 * time.Second},
	} {
		if got := Window(c.session); got != c.window {
			t.Errorf("a session of %v: %v, want %v", c.session, got, c.window)
		}
		now := time.Unix(1e9, 0)
		e := entry(now, c.session)
		for at, want := range map[time.Duration]bool{
			0: true, c.session - c.window - time.Second: true, c.session - c.window: false, c.session: false, -2 * time.Minute: false,
		} {
			if got := e.Usable(now.Add(at)); got != want {
				t.Errorf("a session of %v after %v: usable %v", c.session, at, got)
			}
		}
		e.RetryAfter = e.Expires.Add(time.Second)
		if !e.Usable(e.Expires.Add(-time.Second)) || e.Usable(e.Expires) {
			t.Errorf("a session of %v that could not be renewed: not handed out to its end", c.session)
		}
	}
}

// No consumer may get credentials that it would want refreshed at once.
func TestWindowIsWiderThanConsumers(t *testing.T) {
	newer := func(left time.Duration) time.Duration {
		switch {
		case left <= 20*time.Minute:
			return 5 * time.Minute
		case left < 90*time.Minute:
			return 15 * time.Minute
		}
		return time.Hour
	}
	for session := 15 * time.Minute; session <= 12*time.Hour; session += time.Minute {
		for left := session; left > Window(session); left -= time.Second {
			if left < newer(left)+time.Minute-time.Second {
				t.Fatalf("session of %v with %v left: a newer botocore refreshes it at once", session, left)
			}
			if session > 20*time.Minute && left < 16*time.Minute {
				t.Fatalf("session of %v with %v left: an older botocore refreshes it at once", session, left)
			}
		}
	}
}

func TestEntry(t *testing.T) {
	key := Key("a", "b")
	e := entry(time.Unix(1e9, 0).UTC(), time.Hour)
	text, err := Encode(key, e)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(key, text); err != nil || got != e {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Decode(Key("ab", ""), text); err == nil {
		t.Error("an entry of another key is taken")
	}
	for i := range text {
		bad := append([]byte(nil), text...)
		bad[i] ^= 1
		if _, err := Decode(key, bad); err == nil {
			t.Fatalf("byte %d changed, and it is taken", i)
		}
		if _, err := Decode(key, text[:i]); err == nil {
			t.Fatalf("cut at byte %d, and it is taken", i)
		}
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "e", e, "in", struct{ E Entry }{e}, "p", &e)
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %v %s", e, e, e, e, e, e, &e, struct{ E Entry }{e}) + log.String()
	if strings.Contains(shown, "sesame") || strings.Contains(shown, "736573616d65") {
		t.Errorf("a secret in %s", shown)
	}
	e.SessionToken = "a\nb"
	if _, err := Encode(key, e); err == nil {
		t.Error("a line break is taken")
	}
}

func TestKeyTellsPartsApart(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}} {
		k := Key(parts...)
		if other, ok := seen[k]; ok || len(k) != 64 {
			t.Errorf("%q and %q: %s", parts, other, k)
		}
		seen[k] = parts
	}
}

func TestGetMakesOneSession(t *testing.T) {
	c, key := newCache(t), Key("x")
	var made atomic.Int32
	fetch := func(context.Context) (Entry, error) {
		made.Add(1)
		time.Sleep(100 * time.Millisecond)
		return entry(time.Now().Truncate(time.Second), time.Hour), nil
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if e, err := c.Get(t.Context(), key, fetch); err != nil || e.SecretAccessKey != "sesame-secret" {
				t.Error(e, err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d sessions were made", made.Load())
	}
}

func TestGetWaitsNotForever(t *testing.T) {
	c, key := newCache(t), Key("x")
	lock, err := flock.Try(filepath.Join(c.LockDir, "lock-"+key[:2]))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	c.Wait = 50 * time.Millisecond
	if _, err := c.Get(t.Context(), key, func(context.Context) (Entry, error) { return entry(time.Now(), time.Hour), nil }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := flock.Wait(ctx, filepath.Join(c.LockDir, "lock-"+key[:2])); !errors.Is(err, flock.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestGetWhenRenewalFails(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	c, key := newCache(t), Key("x")
	c.Now = func() time.Time { return now }
	e := entry(now, time.Hour)
	c.save(key, e)
	away, tries := errors.New("away"), 0
	fail := func(ctx context.Context) (Entry, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("an attempt that is not needed yet has no deadline")
		}
		tries++
		return Entry{}, away
	}
	now = now.Add(50 * time.Minute) // inside the window
	for range 5 {
		got, err := c.Get(t.Context(), key, fail)
		if err != nil || !got.Expires.Equal(e.Expires) || got.SessionToken != e.SessionToken {
			t.Fatal(got, err)
		}
	}
	if tries != 1 {
		t.Errorf("%d tries within one back-off", tries)
	}
	now = now.Add(retryAfter)
	if _, err := c.Get(t.Context(), key, fail); err != nil || tries != 2 {
		t.Error(err, tries)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	now = now.Add(retryAfter)
	cancel()
	if _, err := c.Get(cancelled, key, fail); !errors.Is(err, away) {
		t.Error("an interrupted program goes on:", err)
	}
	now = e.Expires
	if _, err := c.Get(t.Context(), key, func(context.Context) (Entry, error) { return Entry{}, away }); !errors.Is(err, away) {
		t.Error("expired credentials are handed out:", err)
	}
	fresh := entry(now, time.Hour)
	if got, err := c.Get(t.Context(), key, func(context.Context) (Entry, error) { return fresh, nil }); err != nil || got != fresh {
		t.Error(got, err)
	}
}

func FuzzDecode(f *testing.F) {
	key := Key("x")
	text, _ := Encode(key, entry(time.Unix(1e9, 0), time.Hour))
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Decode(key, text)
		if err != nil {
			return
		}
		again, err := Encode(key, e)
		if err != nil || string(again) != string(text) {
			t.Errorf("%q became %q, %v", text, again, err)
		}
	})
}
