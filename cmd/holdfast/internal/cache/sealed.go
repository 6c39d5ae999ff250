package cache

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A Box encloses the keys of entries, so that they can be had only where they
// were enclosed: in a TPM.
type Box interface {
	// Name is the box's name in messages: "tpm".
	Name() string
	// Seal returns what Open turns into key again. It is no secret.
	Seal(key []byte) ([]byte, error)
	Open(sealed []byte) (key []byte, err error)
}

// Sealed is a Store whose entries can lie on a disk, in Store: each is
// encrypted with a key of its own, AES-256-GCM, which Box encloses. Goroutines
// must take turns.
type Sealed struct {
	Store
	Box Box

	sealed, key []byte // of the last entry opened: one is looked at several times
}

// sealedFormat begins an entry: it is followed by the length of the enclosed
// key in 16 bits, the enclosed key and the ciphertext.
const sealedFormat = "holdfast-sealed-1\n"

var errSealed = errors.New("damaged, or sealed elsewhere")

// Name returns the box's.
func (s *Sealed) Name() string { return s.Box.Name() }

// Get implements [Store].
func (s *Sealed) Get(key string) ([]byte, error) {
	text, err := s.Store.Get(key)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(text, []byte(sealedFormat))
	if !ok || len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
		return nil, errSealed
	}
	n := 2 + int(binary.BigEndian.Uint16(rest))
	if s.key == nil || !bytes.Equal(rest[2:n], s.sealed) {
		if s.key, err = s.Box.Open(rest[2:n]); err != nil {
			s.key = nil
			return nil, err
		}
		s.sealed = bytes.Clone(rest[2:n])
	}
	aead, err := newAEAD(s.key)
	if err != nil {
		return nil, err
	}
	entry, err := aead.Open(nil, nil, rest[n:], []byte(key))
	if err != nil {
		return nil, errSealed
	}
	return entry, nil
}

// Put implements [Store].
func (s *Sealed) Put(key string, entry []byte, expires time.Time) error {
	k := make([]byte, 32)
	if _, err := rand.Read(k); err != nil {
		return err
	}
	sealed, err := s.Box.Seal(k)
	if err != nil {
		return err
	}
	if len(sealed) > 1<<16-1 {
		return fmt.Errorf("enclosed key of %d bytes", len(sealed))
	}
	aead, err := newAEAD(k)
	if err != nil {
		return err
	}
	s.sealed, s.key = sealed, k
	text := binary.BigEndian.AppendUint16([]byte(sealedFormat), uint16(len(sealed)))
	text = append(text, sealed...)
	return s.Store.Put(key, aead.Seal(text, nil, entry, []byte(key)), expires)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
