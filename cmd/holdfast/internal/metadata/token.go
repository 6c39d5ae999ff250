package metadata

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strconv"
	"sync"
	"time"
)

// Bounds of an IMDS token's life in seconds.
const (
	minTokenTTL = 1
	maxTokenTTL = 21600
)

// tokens issues and checks the tokens of IMDSv2. A token is the time it ends,
// a nonce and a MAC over both, so that any number of them takes no memory.
type tokens struct {
	macs sync.Pool
}

const (
	tokenBody = 8 + 8 // Unix milliseconds, nonce
	tokenSize = tokenBody + sha256.Size
)

func newTokens() *tokens {
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	t := &tokens{}
	t.macs.New = func() any { return hmac.New(sha256.New, key) }
	return t
}

func (t *tokens) issue(ttl int, now time.Time) string {
	var b [tokenSize]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.Add(time.Duration(ttl)*time.Second).UnixMilli()))
	rand.Read(b[8:tokenBody]) // never fails
	t.mac(b[:tokenBody:tokenBody], b[tokenBody:tokenBody])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// parse returns when a token ends, if it is one that was issued here.
func (t *tokens) parse(token string) (ends time.Time, ok bool) {
	var b [tokenSize]byte
	if len(token) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return time.Time{}, false
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(token)); err != nil || n != tokenSize {
		return time.Time{}, false
	}
	var want [sha256.Size]byte
	t.mac(b[:tokenBody], want[:0])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:8]))), hmac.Equal(b[tokenBody:], want[:])
}

// mac appends to out, which has room for it.
func (t *tokens) mac(body, out []byte) {
	h := t.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(body)
	h.Sum(out)
	t.macs.Put(h)
}

// parseTTL takes what IMDS does: decimal digits, from 1 to 21600.
func parseTTL(values []string) (int, bool) {
	if len(values) != 1 || len(values[0]) == 0 || len(values[0]) > 5 || values[0][0] == '+' || values[0][0] == '-' {
		return 0, false
	}
	n, err := strconv.Atoi(values[0])
	return n, err == nil && n >= minTokenTTL && n <= maxTokenTTL
}
