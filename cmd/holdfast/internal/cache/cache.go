// Package cache keeps session credentials between runs of a program, so that
// many short processes share one CreateSession.
//
// # Where
//
// A [Store] keeps entries. [Keyring] is the Linux kernel's: entries are in
// kernel memory, readable only by who possesses them, and the kernel drops
// them when the credentials expire. [Files] is one file of mode 0600 for each
// entry in the user's runtime directory. [Sealed] encrypts what another store
// keeps, with keys that only a TPM gives back.
//
// # When
//
// Consumers refresh credentials some time before they expire, and would ask
// again and again if they were then given the same. An entry is handed out
// while it has more life left than [Window] says. After that, a new session
// is made; should that fail, the old credentials are handed out with their
// true expiration for as long as they live, and nobody tries again for a
// while.
//
// # Who
//
// Of all processes that miss the same entry at once, one makes the session
// and the others take what it stored ([Cache.Get]). The lock between them is
// the kernel's and dies with its holder; nobody waits for it beyond
// [Cache.Wait].
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/cache/flock"
)

// ErrNotFound says that a store has no such entry.
var ErrNotFound = errors.New("no such entry")

// ErrUnavailable says that there is no such store on this machine.
var ErrUnavailable = errors.New("cache not available")

// A Store keeps entries by key, for one user. Implementations are safe for
// concurrent use by many processes: Put replaces an entry as a whole.
type Store interface {
	// Name is the store's name in messages: "keyring".
	Name() string
	// Get returns an entry, or an error that wraps [ErrNotFound].
	Get(key string) ([]byte, error)
	// Put stores an entry that is of no use after expires.
	Put(key string, entry []byte, expires time.Time) error
	// List returns the keys of all entries, in no order.
	List() ([]string, error)
	// Delete removes an entry. It is no error if there is none.
	Delete(key string) error
}

// Key condenses whatever shapes a session to the key of its entry: 64
// hexadecimal digits. Different lists have different keys.
func Key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Bounds of [Cache].
const (
	// DefaultWait is enough for a first attempt that times out and a second.
	DefaultWait = 15 * time.Second

	// spareTimeout bounds an attempt to renew credentials that still live:
	// some callers give up after 5 s.
	spareTimeout = 4 * time.Second
	// retryAfter a failure to renew credentials that still live.
	retryAfter = 10 * time.Second
)

// A Cache gives out what its Store keeps, and fills it.
type Cache struct {
	Store Store

	// LockDir is a directory of the user's own for locks; empty, processes
	// do not wait for each other.
	LockDir string
	// Wait bounds how long a process waits for another's session; zero means
	// [DefaultWait]. It then makes its own.
	Wait time.Duration
	// Patient gives an attempt to renew credentials that still live all the
	// time it wants: a person may be asked.
	Patient bool
	// Log receives what is done, at debug level. Required.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Lookup returns the credentials stored under key, if they may be handed out.
func (c *Cache) Lookup(key string) (Entry, bool) {
	e, ok := c.load(key)
	if !ok || !e.Usable(c.now()) {
		return Entry{}, false
	}
	c.Log.Debug("cache hit", "store", c.Store.Name(), "expires", e.Expires)
	return e, true
}

// Get returns what Lookup would, or the credentials that fetch makes, which it
// stores. Its errors are fetch's: a store that fails is one that has nothing.
func (c *Cache) Get(ctx context.Context, key string, fetch func(context.Context) (Entry, error)) (Entry, error) {
	e, lock, done := c.await(ctx, key)
	if done {
		c.Log.Debug("cache filled by another process", "store", c.Store.Name(), "expires", e.Expires)
		return e, nil
	}
	defer lock.Unlock()
	return c.fill(ctx, key, fetch)
}

// await takes the lock for key, unless another process fills the entry before
// that. Without a lock it returns a nil one after c.Wait at the latest.
func (c *Cache) await(ctx context.Context, key string) (e Entry, lock *flock.Lock, done bool) {
	if c.LockDir == "" {
		e, done = c.Lookup(key)
		return e, nil, done
	}
	wait := c.Wait
	if wait == 0 {
		wait = DefaultWait
	}
	// 256 files serve all keys: two that share one merely wait for each other.
	path := filepath.Join(c.LockDir, "lock-"+key[:2])
	for start, pause := time.Now(), time.Millisecond; ; pause = min(2*pause, 32*time.Millisecond) {
		lock, err := flock.Try(path)
		if err != nil && !errors.Is(err, flock.ErrBusy) {
			c.Log.Debug("cache without a lock", "error", err.Error())
			return e, nil, false
		}
		// Also with the lock in hand: its last holder may have filled it.
		if e, ok := c.load(key); ok && e.Usable(c.now()) {
			lock.Unlock()
			return e, nil, true
		}
		if lock != nil {
			return e, lock, false
		}
		if time.Since(start) >= wait {
			c.Log.Debug("another process holds the lock for too long", "path", path, "waited", time.Since(start))
			return e, nil, false
		}
		select {
		case <-ctx.Done():
			return e, nil, false
		case <-time.After(pause + rand.N(pause)):
		}
	}
}

// fill makes a session and stores it. If that fails and the old credentials
// are alive, they are the answer.
func (c *Cache) fill(ctx context.Context, key string, fetch func(context.Context) (Entry, error)) (Entry, error) {
	old, alive := c.load(key)
	alive = alive && c.now().Before(old.Expires)
	bounded := ctx
	if alive && !c.Patient {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeoutCause(ctx, spareTimeout, fmt.Errorf("no session within %v", spareTimeout))
		defer cancel()
	}
	e, err := fetch(bounded)
	if err == nil {
		c.save(key, e)
		return e, nil
	}
	if !alive || ctx.Err() != nil || !c.now().Before(old.Expires) {
		return Entry{}, err
	}
	c.Log.Debug("no new session: the cached one lives on", "expires", old.Expires, "error", err.Error())
	old.RetryAfter = c.now().Add(retryAfter).Truncate(time.Second)
	c.save(key, old)
	return old, nil
}

// load returns a sound entry of key. A damaged or foreign one counts as none
// and is replaced by the next save.
func (c *Cache) load(key string) (Entry, bool) {
	text, err := c.Store.Get(key)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			c.Log.Debug("cache", "store", c.Store.Name(), "error", err.Error())
		}
		return Entry{}, false
	}
	e, err := Decode(key, text)
	clear(text)
	if err != nil {
		c.Log.Debug("cache entry ignored", "store", c.Store.Name(), "error", err.Error())
		return Entry{}, false
	}
	return e, true
}

func (c *Cache) save(key string, e Entry) {
	text, err := Encode(key, e)
	if err == nil {
		err = c.Store.Put(key, text, e.Expires)
		clear(text)
	}
	if err != nil {
		c.Log.Debug("not cached", "store", c.Store.Name(), "error", err.Error())
	}
}

func (c *Cache) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}
