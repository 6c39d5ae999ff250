// Package awsfiles edits the files that AWS's SDKs share, ~/.aws/credentials
// above all, in place: one profile changes, every other byte stays, and at no
// moment is there a file that is not whole.
//
// The new text goes to a temporary file beside the old one, with its mode and
// owner, is flushed to the disk and renamed over it. A process that dies on
// the way, or a disk that is full, leaves the old file as it was. Symbolic
// links are followed and stay.
//
// Programs that use this package wait for each other by a lock file. The AWS
// CLI knows no lock: it reads, truncates and writes. A change of its that
// crosses ours is found by comparing the file before the rename, the replaced
// file after it, and the result a moment later; the edit is then made again on
// what the other wrote.
package awsfiles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/atomicfile"
	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/cache/flock"
	"github.com/holdfast-iam/holdfast/signer"
)

const (
	maxSize  = 16 << 20
	lockWait = 30 * time.Second
	// maxTries bounds how often an edit is made again because somebody else
	// changed the file meanwhile.
	maxTries = 20
	// settle is longer than an AWS CLI takes from reading the file to writing
	// it, on a machine that has other things to do.
	settle = 150 * time.Millisecond
)

// CredentialsPath returns AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/credentials.
func CredentialsPath() (string, error) {
	if path := os.Getenv("AWS_SHARED_CREDENTIALS_FILE"); path != "" {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", signer.WithHint(fmt.Errorf("no shared credentials file: %w", err), "set AWS_SHARED_CREDENTIALS_FILE")
	}
	return filepath.Join(home, ".aws", "credentials"), nil
}

// SetProfile makes the settings of a profile in the file at path, as [Set]
// does, and sees to it that they last: an edit that somebody else's overwrote
// is made again. It makes the file, mode 0600, and its directory if needed.
// Errors name the path; the file is then as it was.
func SetProfile(ctx context.Context, path, profile string, settings []Setting) error {
	if err := check(profile, settings); err != nil {
		return err
	}
	target, err := resolve(path)
	if err != nil {
		return err
	}
	set := func(old []byte) ([]byte, error) { return Set(old, profile, settings) }
	for range maxTries {
		if err := edit(ctx, target, set); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // it is written; only the last look at it is missing
		case <-time.After(settle):
		}
		text, err := os.ReadFile(target)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if again, err := set(text); err == nil && bytes.Equal(again, text) {
			return nil
		}
	}
	return contended(target)
}

func contended(path string) error {
	return signer.WithHint(fmt.Errorf("%s: something else keeps changing it", path), "stop the other program that writes this file, or give each a file of its own with AWS_SHARED_CREDENTIALS_FILE")
}

// edit replaces the file by what change makes of it, under the lock.
func edit(ctx context.Context, target string, change func(old []byte) ([]byte, error)) error {
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	lock, err := flock.Wait(wait, filepath.Join(dir, "."+filepath.Base(target)+".lock"))
	if err != nil {
		return whole(err)
	}
	defer lock.Unlock()
	sweep(target)
	var base []byte // what a writer beside us left in a file that we replaced
	for range maxTries {
		again, lost, err := replace(target, base, change)
		if err != nil {
			return whole(err)
		}
		if !again {
			return nil
		}
		base = lost
		time.Sleep(time.Millisecond + rand.N(5*time.Millisecond))
	}
	return contended(target)
}

// whole adds what a person wants to know first.
func whole(err error) error {
	if errors.Is(err, atomicfile.ErrUnsure) {
		return err
	}
	hint := signer.Hint(err)
	if hint != "" {
		hint += "; "
	}
	return signer.WithHint(err, hint+"the file is as it was")
}

// resolve follows symbolic links to the file itself, which need not exist.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or nothing there
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}
