package rolesanywhere

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// ProviderName is the Source of credentials made here.
const ProviderName = "RolesAnywhere"

// Defaults of [ProviderOptions].
const (
	DefaultRefreshBefore = 15 * time.Minute
	DefaultRetryInterval = 5 * time.Second
	DefaultMaxRetryDelay = 30 * time.Second
)

// ProviderOptions configure a [Provider]. The zero value is right for
// production.
type ProviderOptions struct {
	// RefreshBefore is how long before they expire credentials are renewed,
	// at most half of a session's life. Renewal is up to a tenth of the
	// session earlier still, at random, so that a fleet started at once does
	// not stay in step. Zero means [DefaultRefreshBefore].
	RefreshBefore time.Duration

	// RetryInterval is the least time between a failed CreateSession and the
	// next; it doubles with each failure up to MaxRetryDelay. Zero means
	// [DefaultRetryInterval] and [DefaultMaxRetryDelay].
	RetryInterval time.Duration
	MaxRetryDelay time.Duration
}

// A Provider is an aws.CredentialsProvider that keeps a session alive. It is
// safe for concurrent use.
//
// Retrieve returns what is at hand and waits for AWS only when that has
// expired, or at first; callers that wait at the same time share one
// CreateSession. Credentials are renewed in the background before they expire,
// once for each session that was asked for: a program that stops asking makes
// no more calls. When renewal fails, the last good credentials are returned
// until they expire, with their true expiration, and then the error;
// CreateSession is tried again with back-off, however often Retrieve is called.
//
// It can be used as it is, or within an aws.CredentialsCache, which the SDK
// wraps around every provider given to config.WithCredentialsProvider.
type Provider struct {
	client Client
	in     SessionInput
	o      ProviderOptions
	ctx    context.Context // of the calls; Close cancels it
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows
	session  *Session   // the last good one; never changed, only replaced
	renewAt  time.Time  // when session is to be renewed
	wanted   bool       // somebody asked since the last renewal began
	call     *call      // under way
	failures int        // in a row
	lastErr  error
	retryAt  time.Time   // no CreateSession before, after a failure
	timer    *time.Timer // pending
}

// call is a CreateSession that many wait for.
type call struct {
	done chan struct{}
	s    *Session
	err  error
}

// ErrProviderClosed is returned when credentials have expired after
// [Provider.Close].
var ErrProviderClosed = errors.New("credentials provider is closed")

var (
	_ aws.CredentialsProvider                     = (*Provider)(nil)
	_ aws.AdjustExpiresByCredentialsCacheStrategy = (*Provider)(nil)
)

// NewProvider returns a provider of the sessions that in names. It does no
// I/O.
func NewProvider(c *Client, in SessionInput, options ...func(*ProviderOptions)) *Provider {
	p := &Provider{client: *c, in: in}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, set := range options {
		set(&p.o)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&p.o.RefreshBefore, DefaultRefreshBefore}, {&p.o.RetryInterval, DefaultRetryInterval}, {&p.o.MaxRetryDelay, DefaultMaxRetryDelay}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	p.o.MaxRetryDelay = max(p.o.MaxRetryDelay, p.o.RetryInterval)
	return p
}

// Retrieve returns valid credentials. Cancelling ctx ends the wait, not the
// call that others may wait for too.
func (p *Provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	s, err := p.Session(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	return s.Credentials, nil
}

// Session is Retrieve with all that is known of the session, which the caller
// must not change.
func (p *Provider) Session(ctx context.Context) (*Session, error) {
	p.mu.Lock()
	now := p.client.o.Now()
	p.wanted = true
	if p.alive(now) {
		defer p.mu.Unlock()
		if now.Before(p.renewAt) {
			p.schedule(now)
		} else {
			p.start(now) // timers stand still on a suspended machine
		}
		return p.session, nil
	}
	if p.call == nil && now.Before(p.retryAt) {
		defer p.mu.Unlock()
		return nil, fmt.Errorf("%w (next try in %v)", p.lastErr, p.retryAt.Sub(now).Round(time.Second))
	}
	p.start(now)
	c := p.call
	p.mu.Unlock()
	if c == nil {
		return nil, ErrProviderClosed
	}
	select {
	case <-c.done:
		return c.s, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Close ends renewal and whatever call is under way, and returns when the
// identity is not in use any more. Until they expire, Retrieve still returns
// the credentials at hand.
func (p *Provider) Close() error {
	p.cancel()
	p.mu.Lock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	c := p.call
	p.mu.Unlock()
	if c != nil {
		<-c.done
	}
	return nil
}

// AdjustExpiresBy lets an aws.CredentialsCache with an ExpiryWindow ask again
// that much before the end, but not before asking gives something new. There
// is no HandleFailToRefresh: Retrieve fails only when nothing is left to hand
// out, and expired credentials are of use to nobody.
func (p *Provider) AdjustExpiresBy(c aws.Credentials, by time.Duration) (aws.Credentials, error) {
	if !c.CanExpire {
		return c, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.renewAt
	if now := p.client.o.Now(); !now.Before(news) {
		news = now.Add(time.Second) // of the renewal under way
		if p.retryAt.After(news) {
			news = p.retryAt
		}
	}
	adjusted := c.Expires.Add(by)
	if adjusted.Before(news) {
		adjusted = news
	}
	if adjusted.Before(c.Expires) {
		c.Expires = adjusted
	}
	return c, nil
}

func (p *Provider) alive(now time.Time) bool {
	return p.session != nil && now.Before(p.session.Credentials.Expires)
}

// start begins a call unless one is under way, the last failure is too recent,
// or p is closed. p.mu is held.
func (p *Provider) start(now time.Time) {
	if p.call != nil || now.Before(p.retryAt) || p.ctx.Err() != nil {
		return
	}
	client := p.client
	if p.failures > 0 || p.alive(now) {
		client.o.Retryer = aws.NopRetryer{} // this provider's own back-off is enough
	}
	c := &call{done: make(chan struct{})}
	p.call = c
	go func() {
		c.s, c.err = client.CreateSession(p.ctx, p.in) // bounded by Options.Timeout
		p.finish(c)
		close(c.done)
	}()
}

func (p *Provider) finish(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.client.o.Now()
	p.call = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if c.err == nil {
		p.session, p.failures, p.lastErr, p.retryAt = c.s, 0, nil, time.Time{}
		p.renewAt = p.renewal(now, c.s.Credentials.Expires)
	} else {
		p.failures++
		p.wanted = true // as it was when this call began
		p.lastErr, p.retryAt = c.err, now.Add(p.backOff())
		p.client.o.Logger.Debug("no session", "failures", p.failures, "next", p.retryAt, "error", c.err.Error())
	}
	p.schedule(now)
}

// schedule sets the timer for the next renewal, unless the session ends before
// that. p.mu is held.
func (p *Provider) schedule(now time.Time) {
	at := p.renewAt
	if p.retryAt.After(at) {
		at = p.retryAt
	}
	if p.timer != nil || p.call != nil || p.ctx.Err() != nil || !p.alive(at) || !p.alive(now) {
		return
	}
	p.timer = time.AfterFunc(at.Sub(now), p.tick)
}

// tick renews the session if anybody wanted it since the last renewal.
func (p *Provider) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	if !p.wanted {
		return // the next Session goes on
	}
	now := p.client.o.Now()
	if now.Before(p.renewAt) || now.Before(p.retryAt) {
		p.schedule(now)
		return
	}
	p.wanted = false
	p.start(now)
}

func (p *Provider) renewal(now, expires time.Time) time.Time {
	life := expires.Sub(now)
	before := min(p.o.RefreshBefore, life/2)
	return expires.Add(-before - rand.N(max(1, life/10)))
}

func (p *Provider) backOff() time.Duration {
	d := min(p.o.RetryInterval<<min(p.failures-1, 10), p.o.MaxRetryDelay)
	return d + rand.N(max(1, d/5))
}
