//go:build cgo

package cryptoki_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
)

// compile makes a shared library for this test alone.
func compile(t testing.TB, source string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(source), ".c")+".so")
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal("gcc is missing: apt-get install gcc libc6-dev")
	}
	if text, err := exec.Command(gcc, append([]string{"-shared", "-fPIC", "-O1", "-o", out, source, "-ldl", "-lpthread"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, text)
	}
	return out
}

// A shim is a module in front of SoftHSM that misbehaves when told to.
type shim struct {
	*cryptoki.Module
	log string
}

func newShim(t testing.TB, labels ...string) *shim {
	t.Helper()
	newHSM(t, labels...)
	s := &shim{log: filepath.Join(t.TempDir(), "calls")}
	t.Setenv("SHIM_MODULE", modulePath(t))
	t.Setenv("SHIM_LOG", s.log)
	t.Setenv("SHIM", "")
	m, err := cryptoki.Load(compile(t, "testdata/shim.c"))
	if err != nil {
		t.Fatal(err)
	}
	s.Module = m
	t.Cleanup(func() {
		t.Setenv("SHIM", "")
		checkNoSessions(t)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// misbehave takes the words that testdata/shim.c explains, and forgets the
// calls made so far.
func (s *shim) misbehave(t testing.TB, words string) {
	t.Helper()
	if err := os.WriteFile(s.log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SHIM", words)
}

// calls counts the calls of a function since misbehave.
func (s *shim) calls(t testing.TB, name string) int {
	t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == name {
			n++
		}
	}
	return n
}
