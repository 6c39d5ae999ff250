package metadata

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
)

const (
	minAuthorization = 16
	maxAuthorization = 4096

	// tokenFileAge is how long what was read counts as current.
	tokenFileAge = time.Second
)

// A TokenFile is a file that holds an authorization token: what SDKs send
// when AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names it. It is read again while
// in use, so that a new token counts at once and an old one no longer than a
// second.
type TokenFile struct {
	path string

	mu   sync.Mutex
	text signer.Secret
	err  error
	read time.Time
}

// OpenTokenFile reads the file. The token is the whole of it, 16 to 4096
// bytes; a line break is an error, since SDKs refuse to send one.
func OpenTokenFile(path string) (*TokenFile, error) {
	f := &TokenFile{path: path}
	f.load()
	return f, f.err
}

// Path returns the file's path.
func (f *TokenFile) Path() string { return f.path }

// check returns an error if the file cannot be used, and whether the request's
// Authorization is its token.
func (f *TokenFile) check(values []string, now time.Time) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	reread := now.Sub(f.read) >= tokenFileAge
	if reread {
		f.load()
	}
	if f.equals(values) {
		return true, nil
	}
	if !reread && len(values) == 1 { // the file may have changed a moment ago
		f.load()
	}
	return f.equals(values), f.err
}

func (f *TokenFile) equals(values []string) bool {
	return f.err == nil && len(values) == 1 && subtle.ConstantTimeCompare([]byte(values[0]), f.text.Reveal()) == 1
}

func (f *TokenFile) load() {
	f.text, f.err = readTokenFile(f.path)
	f.read = time.Now()
}

func readTokenFile(path string) (signer.Secret, error) {
	file, err := os.Open(path)
	if err != nil {
		return signer.Secret{}, fmt.Errorf("authorization token: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxAuthorization+1))
	defer clear(text)
	switch {
	case err != nil:
		return signer.Secret{}, fmt.Errorf("authorization token: %w", err)
	case bytes.ContainsAny(text, "\r\n"):
		return signer.Secret{}, signer.WithHint(
			fmt.Errorf("authorization token: %s holds a line break, which no SDK sends", path),
			"write it without: printf %s \"$token\" >"+path)
	case len(text) < minAuthorization || len(text) > maxAuthorization:
		return signer.Secret{}, signer.WithHint(
			fmt.Errorf("authorization token: %s holds %d bytes, not %d to %d", path, len(text), minAuthorization, maxAuthorization),
			"openssl rand -hex 32 | tr -d '\\n' >"+path)
	}
	return signer.NewSecret(text), nil
}
