package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/holdfast-iam/holdfast/signer"
)

// Pins remembers the Names of the keys that sessions are salted to. Something
// that sits between this program and the TPM could offer a key of its own for
// that; it would have to do so from the very first use.
//
// Implementations must be safe for concurrent use.
type Pins interface {
	// Check records name at its first use for key of the TPM device, and
	// returns an error that wraps [ErrPinned] if another one was recorded.
	Check(device, key string, name []byte) error
}

// ErrPinned: the key that sessions are salted to is not the one it was.
var ErrPinned = errors.New("the TPM's storage key is not the one it was")

func pinned(device, key, where string) error {
	hint := "was the TPM cleared or replaced? If not, something between this program and the TPM reads along"
	if where != "" {
		hint += "; after a clear, remove " + where
	}
	return signer.WithHint(fmt.Errorf("TPM %s: %w (%s)", device, ErrPinned, key), hint)
}

type memoryPins struct {
	mu    sync.Mutex
	names map[string][]byte
}

func (p *memoryPins) Check(device, key string, name []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := device + "\n" + key
	if old, ok := p.names[id]; ok {
		if !bytes.Equal(old, name) {
			return pinned(device, key, "")
		}
		return nil
	}
	if p.names == nil {
		p.names = map[string][]byte{}
	}
	p.names[id] = bytes.Clone(name)
	return nil
}

// DirPins returns Pins that keep each Name in a file in dir, which is made if
// it does not exist.
func DirPins(dir string) Pins { return &dirPins{dir: dir} }

type dirPins struct {
	dir string
	mu  sync.Mutex
}

func (p *dirPins) Check(device, key string, name []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := sha256.Sum256([]byte(device + "\n" + key))
	path := filepath.Join(p.dir, fmt.Sprintf("tpm-%x.name", sum[:8]))
	old, err := os.ReadFile(path) //nolint:gosec // the path is ours
	if errors.Is(err, os.ErrNotExist) {
		return p.record(path, name)
	}
	if err != nil {
		return fmt.Errorf("pinned TPM key: %w", err)
	}
	was, err := hex.DecodeString(strings.TrimSpace(string(old)))
	if err != nil || len(was) == 0 {
		return fmt.Errorf("pinned TPM key: %s: %w", path, signer.ErrMalformed)
	}
	if !bytes.Equal(was, name) {
		return pinned(device, key, path)
	}
	return nil
}

// record creates the file whole: another process may be doing the same.
func (p *dirPins) record(path string, name []byte) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("pinning the TPM's key: %w", err)
	}
	f, err := os.CreateTemp(p.dir, ".pin-*")
	if err != nil {
		return fmt.Errorf("pinning the TPM's key: %w", err)
	}
	_, err = fmt.Fprintf(f, "%x\n", name)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("pinning the TPM's key: %w", err)
	}
	return nil
}
