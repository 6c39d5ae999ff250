package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// An Entry is a session's credentials. However it is printed or logged, it
// shows no secret. Times are kept in whole seconds.
type Entry struct {
	RoleARN         string
	AccountID       string
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string

	Created time.Time
	Expires time.Time
	// RetryAfter is set when a renewal failed: until then, the entry is
	// handed out whatever Window says. Zero otherwise.
	RetryAfter time.Time
}

// Usable reports whether e may be handed out at the given time.
func (e *Entry) Usable(now time.Time) bool {
	const skew = time.Minute
	if now.Before(e.Created.Add(-skew)) {
		return false // the clock was wrong when it was made, or is now
	}
	left := e.Expires.Sub(now)
	return left > Window(e.Expires.Sub(e.Created)) || left > 0 && now.Before(e.RetryAfter)
}

// Window returns how much life credentials of a session of the given length
// must have left to be handed out: what the consumer with the widest refresh
// window for such sessions wants, and a minute more.
//
//	session          newer botocore   older botocore   Window
//	from 90 min      60 min           15 min           61 min
//	20 to 90 min     15 min           15 min           16 min
//	up to 20 min      5 min           15 min            6 min, at most half the session
//
// Other SDKs refresh within 5 minutes of the end. An older botocore asks at
// every request for a session of 15 minutes, cache or not; it then gets the
// same for most of the session's life.
func Window(session time.Duration) time.Duration {
	const margin = time.Minute
	switch {
	case session <= 20*time.Minute:
		return min(5*time.Minute+margin, session/2)
	case session < 90*time.Minute:
		return 15*time.Minute + margin
	}
	return time.Hour + margin
}

const magic = "holdfast session 1 "

var errFormat = errors.New("damaged or foreign cache entry")

// Encode writes e as text, under the key it belongs to.
func Encode(key string, e Entry) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(magic + key + "\n")
	fields := [...]string{
		e.RoleARN, e.AccountID, e.AccessKeyID, e.SecretAccessKey, e.SessionToken,
		unixText(e.Created), unixText(e.Expires), unixText(e.RetryAfter),
	}
	for _, f := range fields {
		if strings.ContainsRune(f, '\n') {
			return nil, errors.New("credentials with a line break")
		}
		b.WriteString(f)
		b.WriteByte('\n')
	}
	sum := sha256.Sum256(b.Bytes())
	b.WriteString(hex.EncodeToString(sum[:]) + "\n")
	return b.Bytes(), nil
}

// Decode reads what Encode wrote for the same key. Its errors tell nothing of
// what they found.
func Decode(key string, text []byte) (Entry, error) {
	const sumLen = 2*sha256.Size + 1
	if len(text) < sumLen {
		return Entry{}, errFormat
	}
	body, tail := text[:len(text)-sumLen], text[len(text)-sumLen:]
	sum := sha256.Sum256(body)
	if string(tail) != hex.EncodeToString(sum[:])+"\n" {
		return Entry{}, errFormat
	}
	rest, ok := strings.CutPrefix(string(body), magic+key+"\n")
	f := strings.Split(rest, "\n")
	if !ok || len(f) != 9 || f[8] != "" {
		return Entry{}, errFormat
	}
	e := Entry{RoleARN: f[0], AccountID: f[1], AccessKeyID: f[2], SecretAccessKey: f[3], SessionToken: f[4]}
	for i, t := range []*time.Time{&e.Created, &e.Expires, &e.RetryAfter} {
		n, err := strconv.ParseInt(f[5+i], 10, 64)
		if err != nil || n < 0 || n > 1<<40 {
			return Entry{}, errFormat
		}
		if n != 0 {
			*t = time.Unix(n, 0).UTC()
		}
	}
	if e.AccessKeyID == "" || e.SecretAccessKey == "" || e.SessionToken == "" || !e.Created.Before(e.Expires) {
		return Entry{}, errFormat
	}
	return e, nil
}

func unixText(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatInt(t.Unix(), 10)
}

// String names the session.
func (e Entry) String() string {
	return fmt.Sprintf("session %s of %s until %s", e.AccessKeyID, e.RoleARN, e.Expires.UTC().Format(time.RFC3339))
}

// Format is String for every verb.
func (e Entry) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(e.String())) }

// LogValue is String.
func (e Entry) LogValue() slog.Value { return slog.StringValue(e.String()) }

// MarshalText is String.
func (e Entry) MarshalText() ([]byte, error) { return []byte(e.String()), nil }
