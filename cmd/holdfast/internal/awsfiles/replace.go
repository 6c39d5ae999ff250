package awsfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/atomicfile"
	"github.com/holdfast-iam/holdfast/signer"
)

// A snapshot is the file as it was read; the zero value is no file.
type snapshot struct {
	f    *os.File // open, so that it can be looked at once it is replaced
	info fs.FileInfo
	text []byte
}

func take(path string) (*snapshot, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &snapshot{}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &snapshot{f: f}
	if s.info, err = f.Stat(); err == nil {
		switch {
		case !s.info.Mode().IsRegular():
			err = fmt.Errorf("%s: is no regular file", path)
		case s.info.Size() > maxSize:
			err = fmt.Errorf("%s: larger than %d bytes", path, maxSize)
		case s.info.Mode().Perm()&0o200 == 0:
			// Its directory may allow to replace it, but that is not meant.
			err = signer.WithHint(fmt.Errorf("%s: is read-only (mode %04o)", path, s.info.Mode().Perm()), "allow writing with chmod u+w, or name another file with AWS_SHARED_CREDENTIALS_FILE")
		default:
			s.text, err = stable(f)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *snapshot) close() {
	if s.f != nil {
		s.f.Close()
	}
}

// stable reads a file. A writer that has just truncated it gets a moment to
// fill it again.
func stable(f *os.File) ([]byte, error) {
	var text []byte
	for wait := time.Duration(0); wait < 300*time.Millisecond; wait += 10 * time.Millisecond {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		now, err := io.ReadAll(io.LimitReader(f, maxSize))
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		recent := time.Since(info.ModTime()).Abs() < 50*time.Millisecond
		if len(now) > 0 && (!recent || wait > 0 && bytes.Equal(now, text)) || len(now) == 0 && time.Since(info.ModTime()) > 300*time.Millisecond {
			return now, nil
		}
		text = now
		time.Sleep(10 * time.Millisecond)
	}
	return text, nil
}

// replace makes one attempt. It asks for another if the file changed before
// the rename, and returns what a writer that was not noticed before it left in
// the replaced file, as base of the next.
func replace(target string, base []byte, change func([]byte) ([]byte, error)) (again bool, lost []byte, err error) {
	before, err := take(target)
	if err != nil {
		return false, nil, err
	}
	defer before.close()
	if base == nil {
		base = before.text
	}
	text, err := change(base)
	if err != nil {
		return false, nil, fmt.Errorf("%s: %w", target, err)
	}
	if before.f != nil && bytes.Equal(text, before.text) {
		return false, nil, nil
	}
	temp, err := atomicfile.Write(target, tempPattern(target), text, before.info)
	if err != nil {
		return false, nil, err
	}
	renamed := false
	defer func() {
		if !renamed {
			_ = os.Remove(temp) // the error that led here is the one to tell
		}
	}()
	if !before.current(target) {
		return true, nil, nil
	}
	if runtime.GOOS == "windows" {
		before.close() // no open file can be replaced there
	}
	if before.info == nil {
		// A link fails where a rename would replace a file just made.
		if err := os.Link(temp, target); err == nil || errors.Is(err, fs.ErrExist) {
			return err != nil, nil, atomicfile.SyncDir(filepath.Dir(target))
		}
	}
	if err := os.Rename(temp, target); err != nil {
		return false, nil, err
	}
	renamed = true
	if err := atomicfile.SyncDir(filepath.Dir(target)); err != nil {
		return false, nil, err
	}
	lost = before.lost()
	return lost != nil, lost, nil
}

// current reports whether the file still is what the snapshot shows.
func (s *snapshot) current(path string) bool {
	info, err := os.Stat(path)
	if s.info == nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	if err != nil || !os.SameFile(info, s.info) {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && bytes.Equal(text, s.text)
}

// lost returns what somebody wrote to the replaced file after it was read.
// Who opened it before the rename has truncated it by now, and finishes.
func (s *snapshot) lost() []byte {
	if s.f == nil || runtime.GOOS == "windows" {
		return nil
	}
	info, err := s.f.Stat()
	if err != nil || info.Size() == int64(len(s.text)) && info.ModTime().Equal(s.info.ModTime()) {
		return nil
	}
	text, err := stable(s.f)
	if err != nil || len(text) == 0 || bytes.Equal(text, s.text) {
		return nil
	}
	return text
}

func tempPattern(target string) string { return "." + filepath.Base(target) + ".holdfast-*" }

// sweep removes what killed runs left. The caller holds the lock, so none of
// it is in use.
func sweep(target string) {
	entries, _ := os.ReadDir(filepath.Dir(target))
	for _, e := range entries {
		if ok, _ := filepath.Match(globEscape(tempPattern(target)), e.Name()); ok {
			_ = os.Remove(filepath.Join(filepath.Dir(target), e.Name()))
		}
	}
}

// globEscape leaves only the star at the end with a meaning.
func globEscape(pattern string) string {
	var b bytes.Buffer
	for i, r := range pattern {
		if (r == '*' && i < len(pattern)-1) || r == '?' || r == '[' {
			b.WriteString("[" + string(r) + "]")
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
