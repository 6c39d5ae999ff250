package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// Fetch makes one session. A Role calls it from one goroutine at a time.
type Fetch func(ctx context.Context) (*rolesanywhere.Session, error)

// Provenance is what a session was made with.
type Provenance struct {
	CertificateSerial string // lower-case hex
	CertificateExpiry time.Time
	Key               string // a reference without secrets
}

// RoleOptions configure a [Role].
type RoleOptions struct {
	// Name is the role's in paths: letters, digits and _+=,.@-
	Name string

	Fetch Fetch
	// Provenance tells of the latest Fetch that succeeded; nil if nobody
	// knows. It is called from the goroutine that calls Fetch.
	Provenance func() Provenance

	// AllowUIDs are the users who may have the credentials; empty means all.
	AllowUIDs []uint32
	// Token, if not nil, is what a request must bring as Authorization. IMDS
	// has no place for one and does not serve such a role.
	Token *TokenFile

	// Logger receives the audit; nil means silence.
	Logger *slog.Logger
}

// A Role keeps the credentials of one role. All its methods but Run may be
// called from any goroutine.
type Role struct {
	o    RoleOptions
	snap atomic.Pointer[snapshot]
	wake chan struct{}
	beat atomic.Pointer[time.Time]

	handedOut, refreshed, failed atomic.Uint64

	mu    sync.Mutex
	err   error         // of the latest attempt; nil after a success
	retry time.Time     // when the next attempt is made, after a failure
	round chan struct{} // closed when the attempt under way, or else the next, ends
}

// NewRole returns a role without credentials, until Run has fetched some.
func NewRole(o RoleOptions) (*Role, error) {
	if !IsName(o.Name) {
		return nil, fmt.Errorf("role name %q: use 1 to 64 of A-Z a-z 0-9 _ + = , . @ -", o.Name)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Role{o: o, wake: make(chan struct{}, 1), round: make(chan struct{})}
	r.heartbeat()
	return r, nil
}

// IsName reports whether s can be a role's name in a path.
func IsName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '+', c == '=', c == ',', c == '.', c == '@', c == '-':
		default:
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64 && s != "." && s != ".."
}

// Name returns the role's name.
func (r *Role) Name() string { return r.o.Name }

// HasToken reports whether requests must bring an authorization token.
func (r *Role) HasToken() bool { return r.o.Token != nil }

// Inherit takes over the credentials of a role of the same ARN that this one
// replaces.
func (r *Role) Inherit(from *Role) {
	if s := from.snap.Load(); s.live(time.Now()) {
		r.snap.Store(s)
	}
}

// Err returns why there are no credentials to hand out, or nil if there are.
func (r *Role) Err() error {
	if r.snap.Load().live(time.Now()) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return &unavailableError{role: r.o.Name, err: errors.New("the first are being fetched")}
	}
	return &unavailableError{role: r.o.Name, err: r.err, retry: r.retry}
}

// Stuck reports whether the role's goroutine has shown no sign of life for so
// long.
func (r *Role) Stuck(limit time.Duration) bool { return time.Since(*r.beat.Load()) > limit }

func (r *Role) heartbeat() {
	now := time.Now()
	r.beat.Store(&now)
}

func (r *Role) allows(uid int64) bool {
	return len(r.o.AllowUIDs) == 0 || uid >= 0 && uid <= 1<<32-1 && slices.Contains(r.o.AllowUIDs, uint32(uid))
}

// unavailableError says that there are no credentials, and why.
type unavailableError struct {
	role  string
	err   error
	retry time.Time
}

func (e *unavailableError) Error() string {
	return fmt.Sprintf("no valid credentials for role %s: %v", e.role, e.err)
}
func (e *unavailableError) Unwrap() error { return e.err }
