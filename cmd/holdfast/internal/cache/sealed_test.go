package cache

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// xorBox encloses keys in a manner that would not do.
type xorBox struct{ opened int }

func (*xorBox) Name() string { return "xor" }

func (*xorBox) Seal(key []byte) ([]byte, error) { return xor(key), nil }

func (b *xorBox) Open(sealed []byte) ([]byte, error) {
	b.opened++
	if len(sealed) != 32 {
		return nil, errors.New("not mine")
	}
	return xor(sealed), nil
}

func xor(b []byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] ^= 0x55
	}
	return b
}

func TestSealedEntries(t *testing.T) {
	files, box := newCache(t).Store.(*Files), &xorBox{}
	s := &Sealed{Store: files, Box: box}
	key, later, secret := Key("a"), time.Now().Add(time.Hour), []byte("the secret access key")
	if err := s.Put(key, secret, later); err != nil {
		t.Fatal(err)
	}
	onDisk, err := files.Get(key)
	if err != nil || bytes.Contains(onDisk, secret) {
		t.Errorf("on the disk: %q, %v", onDisk, err)
	}
	for range 3 {
		if got, err := (s).Get(key); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if box.opened != 0 {
		t.Errorf("the box was opened %d times for what was put", box.opened)
	}
	for range 3 {
		fresh := &Sealed{Store: files, Box: box}
		for range 3 {
			if got, err := fresh.Get(key); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
	if box.opened != 3 {
		t.Errorf("the box was opened %d times for 3 processes", box.opened)
	}
	// Every byte counts, and so does the key it lies under.
	for i := range onDisk {
		damaged := bytes.Clone(onDisk)
		damaged[i] ^= 1
		if err := files.Put(key, damaged, later); err != nil {
			t.Fatal(err)
		}
		if got, err := (&Sealed{Store: files, Box: box}).Get(key); err == nil {
			t.Errorf("byte %d changed: %q", i, got)
		}
	}
	for n := range onDisk {
		if err := files.Put(key, onDisk[:n], later); err != nil {
			t.Fatal(err)
		}
		if got, err := (&Sealed{Store: files, Box: box}).Get(key); err == nil {
			t.Errorf("cut to %d bytes: %q", n, got)
		}
	}
	if err := files.Put(Key("b"), onDisk, later); err != nil {
		t.Fatal(err)
	}
	if got, err := (&Sealed{Store: files, Box: box}).Get(Key("b")); err == nil {
		t.Errorf("under another key: %q", got)
	}
}
