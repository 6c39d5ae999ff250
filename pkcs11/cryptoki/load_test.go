//go:build cgo

package cryptoki_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
)

func TestLoadFails(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	source := write("library.c", "int f(void) { return 1; }\n")
	missing := write("missing.c", "void nowhere(void); void *C_GetFunctionList = (void *)nowhere;\n")
	none := write("none.c", "unsigned long C_GetFunctionList(void **l) { return 0; }\n")
	foreign := write("foreign.so", "")
	self, err := os.ReadFile(modulePath(t))
	if err != nil {
		t.Fatal(err)
	}
	other := append([]byte(nil), self...)
	other[18] = map[string]byte{"amd64": 183}[runtime.GOARCH] // e_machine: AArch64, or none
	if err := os.WriteFile(foreign, other, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		is         error
		texts      []string
	}{
		{"absent", filepath.Join(dir, "absent.so"), pkcs11.ErrModuleNotFound, []string{"absent.so", "no such file"}},
		{"text", write("text.so", "this is a text\n"), pkcs11.ErrModuleInvalid, []string{"not a shared library"}},
		{"empty", write("empty.so", ""), pkcs11.ErrModuleInvalid, []string{"empty.so", "too short"}},
		{"cut short", write("short.so", string(self[:5000])), pkcs11.ErrModuleInvalid, []string{"short.so"}},
		{"directory", dir, pkcs11.ErrModuleInvalid, []string{dir}},
		{"a library", compile(t, source), pkcs11.ErrModuleInvalid, []string{"no C_GetFunctionList"}},
		{"unresolved", compile(t, missing), pkcs11.ErrModuleInvalid, []string{"undefined symbol"}},
		{"no list", compile(t, none), pkcs11.ErrModuleInvalid, []string{"returned nothing"}},
		{"architecture", foreign, pkcs11.ErrModuleInvalid, []string{"built for EM_AARCH64"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := cryptoki.Load(test.path)
			checkError(t, err, test.is, test.texts...)
		})
	}
}

// A module that cannot read its configuration says where to look.
func TestInitializeFails(t *testing.T) {
	s := newShim(t, "init")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.misbehave(t, "fail=C_Initialize:5:1")
	_, err := cryptoki.Load(s.Info().Path)
	checkError(t, err, pkcs11.ErrModuleFailed, "CKR_GENERAL_ERROR")
	m, err := cryptoki.Load(s.Info().Path)
	if err != nil {
		t.Fatal(err)
	}
	s.Module = m
}

// Links lead to one module, initialised once.
func TestLinksShareOneModule(t *testing.T) {
	s := newShim(t, "links")
	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(s.Info().Path, link); err != nil {
		t.Fatal(err)
	}
	s.misbehave(t, "")
	m, err := cryptoki.Load(link)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.calls(t, "C_Initialize"); n != 0 || m.Info() != s.Info() {
		t.Errorf("initialised %d times more; %+v", n, m.Info())
	}
	k := generate(t, m, "pkcs11:token=links;object=k", "ec-p256", options(nil))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error("closing twice:", err)
	}
	checkSigns(t, k)
}

// A module that another part of the process initialised is not finalised.
func TestForeignInitialize(t *testing.T) {
	newHSM(t, "foreign")
	ctx := p11.New(modulePath(t))
	if err := ctx.Initialize(); err != nil {
		t.Fatal(err)
	}
	m, err := cryptoki.Load(modulePath(t))
	if err != nil {
		t.Fatal(err)
	}
	if tokens, err := m.Tokens(t.Context()); err != nil || len(tokens) != 1 {
		t.Errorf("%v, %v", tokens, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ctx.GetInfo(); err != nil {
		t.Error("finalised under its owner:", err)
	}
	if err := ctx.Finalize(); err != nil {
		t.Fatal(err)
	}
}

// The module gives a list of functions once. (p11-kit's proxy would give
// another each time, with a state of its own.)
func TestListIsTheWrappers(t *testing.T) {
	s := newShim(t, "list")
	if n := s.calls(t, "C_GetFunctionList"); n != 1 {
		t.Errorf("C_GetFunctionList was called %d times", n)
	}
	checkSigns(t, generate(t, s.Module, "pkcs11:token=list;object=k", "ec-p256", options(nil)))
}
