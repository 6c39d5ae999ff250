package metadata

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

const (
	// minLife is what SDKs want to see: botocore extends the life of IMDS
	// credentials by itself when it finds less than 25 minutes, and signs with
	// them when they have expired.
	minLife = 27 * time.Minute
	// maxLead suits the longest refresh window of any SDK, an hour.
	maxLead = 65 * time.Minute
	// minInterval keeps short sessions from being made all the time for
	// minLife's sake.
	minInterval = 10 * time.Minute

	// Back-off after failures, from the end of one attempt to the next. The
	// jitter takes up to an eighth off, so that never two attempts fall into 5
	// seconds.
	firstBackOff = 6 * time.Second
	lastBackOff  = time.Minute

	// beatInterval is how often a waiting role looks at the wall clock: timers
	// stand still while a machine is suspended.
	beatInterval = 30 * time.Second

	// firstWait is how long a request waits for credentials that nobody has
	// failed to get yet.
	firstWait = 5 * time.Second
)

// refreshAt returns when to replace credentials: halfway through a session, but
// with at least minLife left where the session is long enough, and not before
// maxLead. jitter, from 0 to 1, brings it forward.
func refreshAt(taken, expires time.Time, jitter float64) time.Time {
	life := expires.Sub(taken)
	lead := min(max(life/2, min(minLife, life-minInterval)), maxLead)
	return expires.Add(-lead - time.Duration(jitter*float64(life/20)))
}

// backOff returns how long to wait after so many failures in a row, when the
// credentials at hand live for so long: several attempts have to fit.
func backOff(failures int, left time.Duration, jitter float64) time.Duration {
	d := lastBackOff
	if shift := failures - 1; shift < 4 {
		d = min(firstBackOff<<shift, lastBackOff)
	}
	if left > 0 {
		d = min(d, max(firstBackOff, left/4))
	}
	return d - time.Duration(jitter*float64(d/8))
}

// Run keeps the credentials fresh until ctx ends. It must be called once.
func (r *Role) Run(ctx context.Context) {
	failures := 0
	if s := r.snap.Load(); s != nil { // inherited: others may start at the same time
		if !r.sleep(ctx, time.Now().Add(time.Duration(rand.Int64N(int64(time.Second))))) {
			return
		}
	}
	for {
		next := r.attempt(ctx, &failures)
		if !r.sleep(ctx, next) {
			return
		}
	}
}

// attempt fetches once and returns when to do so again.
func (r *Role) attempt(ctx context.Context, failures *int) time.Time {
	r.heartbeat()
	session, err := r.o.Fetch(ctx)
	var s *snapshot
	if err == nil {
		var p Provenance
		if r.o.Provenance != nil {
			p = r.o.Provenance()
		}
		s, err = newSnapshot(session, p, time.Now())
	}
	r.heartbeat()
	if ctx.Err() != nil {
		return time.Now()
	}
	now := time.Now()
	var next time.Time
	if err == nil {
		*failures = 0
		next = refreshAt(s.taken, s.expires, rand.Float64())
		r.snap.Store(s)
		r.refreshed.Add(1)
		r.o.Logger.Info("session", append([]any{"role", r.o.Name, "refreshAt", next.UTC().Truncate(time.Second)}, s.audit()...)...)
	} else {
		*failures++
		next = now.Add(backOff(*failures, r.snap.Load().left(now), rand.Float64()))
		r.failed.Add(1)
		r.logFailure(err, *failures, next)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.retry = err, next
	close(r.round)
	r.round = make(chan struct{})
	return next
}

func (r *Role) logFailure(err error, failures int, next time.Time) {
	args := []any{"role", r.o.Name, "error", err.Error(), "failures", failures, "retryAt", next.UTC().Truncate(time.Second)}
	if hint := signer.Hint(err); hint != "" {
		args = append(args, "hint", hint)
	}
	if s := r.snap.Load(); s != nil {
		args = append(args, "credentialsExpire", s.expires)
	}
	r.o.Logger.Warn("session failed", args...)
}

// sleep waits until the wall clock shows t, and returns false if ctx ends
// first.
func (r *Role) sleep(ctx context.Context, t time.Time) bool {
	t = t.Round(0) // without its monotonic reading
	for {
		r.heartbeat()
		left := time.Until(t)
		if left <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(left, beatInterval))
		select {
		case <-timer.C:
		case <-r.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// credentials returns what to hand out. It waits only if there is nothing, and
// nobody has failed to get it yet: in the first moments, and when a machine
// wakes up.
func (r *Role) credentials(ctx context.Context, now time.Time) (*snapshot, error) {
	if s := r.snap.Load(); s.live(now) {
		return s, nil
	}
	r.mu.Lock()
	failed, round := r.err != nil, r.round
	r.mu.Unlock()
	if !failed {
		select {
		case r.wake <- struct{}{}:
		default:
		}
		timer := time.NewTimer(firstWait)
		defer timer.Stop()
		select {
		case <-round:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if s := r.snap.Load(); s.live(time.Now()) {
		return s, nil
	}
	return nil, r.Err()
}

// audit returns what the log says of a session.
func (s *snapshot) audit() []any {
	return []any{
		"certificateSerial", s.provenance.CertificateSerial, "key", s.provenance.Key,
		"requestId", s.session.RequestID, "sessionArn", s.session.AssumedRoleARN,
		"accessKeyId", s.session.Credentials.AccessKeyID, "expires", s.expires,
	}
}
