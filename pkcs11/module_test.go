package pkcs11

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
)

func touch(t *testing.T, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		path := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindModule(t *testing.T) {
	tests := []struct{ goos, goarch, file, uri, library string }{
		{"linux", "amd64", "usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "pkcs11:?module-name=softhsm2", ""},
		{"linux", "arm64", "usr/lib/aarch64-linux-gnu/pkcs11/opensc-pkcs11.so", "pkcs11:?module-name=opensc-pkcs11", ""},
		{"linux", "amd64", "usr/lib64/pkcs11/libsofthsm2.so", "pkcs11:?module-name=libsofthsm2.so", ""},
		{"linux", "amd64", "usr/local/lib/softhsm/libsofthsm2.so", "", "libsofthsm2.so"},
		{"linux", "amd64", "usr/lib/softhsm/libsofthsm2.so", "", "softhsm2"},
		{"linux", "amd64", "usr/lib/x86_64-linux-gnu/p11-kit-proxy.so", "", ""},
		{"linux", "amd64", "usr/lib/x86_64-linux-gnu/p11-kit-proxy.so", "pkcs11:token=x", ""},
		{"darwin", "arm64", "opt/homebrew/lib/softhsm/libsofthsm2.so", "pkcs11:?module-name=softhsm2", ""},
		{"darwin", "arm64", "opt/homebrew/lib/p11-kit-proxy.dylib", "", ""},
	}
	for _, test := range tests {
		t.Run(test.goos+" "+test.file, func(t *testing.T) {
			p := places{t.TempDir(), test.goos, test.goarch}
			touch(t, p.root, test.file)
			got, err := p.find(mustParse(t, test.uri), test.library)
			if err != nil || got != filepath.Join(p.root, test.file) {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

func mustParse(t *testing.T, s string) *URI {
	t.Helper()
	if s == "" {
		return nil
	}
	u, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// module-path goes before module-name, that before the library, and what is
// named and absent is an error.
func TestFindModuleOrder(t *testing.T) {
	p := places{t.TempDir(), "linux", "amd64"}
	touch(t, p.root, "a.so", "dir/libb.so", "usr/lib/pkcs11/libb.so", "usr/lib/pkcs11/c.so", "usr/lib/p11-kit-proxy.so")
	at := func(s string) string { return filepath.Join(p.root, s) }
	both := (&URI{}).With(AttrModulePath, at("a.so")).With(AttrModuleName, "b")
	for _, test := range []struct {
		u             *URI
		library, want string
	}{
		{both, "c", "a.so"},
		{both.With(AttrModulePath, at("dir")), "c", "dir/libb.so"},
		{both.Without(AttrModulePath), "c", "usr/lib/pkcs11/libb.so"},
		{nil, "c", "usr/lib/pkcs11/c.so"},
		{nil, at("a.so"), "a.so"},
		{nil, "", "usr/lib/p11-kit-proxy.so"},
	} {
		if got, err := p.find(test.u, test.library); err != nil || got != at(test.want) {
			t.Errorf("%v, %q: %s, %v", test.u, test.library, got, err)
		}
	}
	for _, test := range []struct {
		u             *URI
		library, text string
	}{
		{both.With(AttrModulePath, at("none.so")), "", "none.so"},
		{(&URI{}).With(AttrModulePath, at("dir")), "", "is a directory"},
		{(&URI{}).With(AttrModuleName, "none"), "c", at("usr/lib/pkcs11")},
		{(&URI{}).With(AttrModuleName, "../a"), "", "not the name"},
		{nil, "none", "libnone.so"},
		{nil, "/none.so", "none.so"},
	} {
		_, err := p.find(test.u, test.library)
		if !errors.Is(err, ErrModuleNotFound) || !strings.Contains(err.Error(), test.text) || signer.Hint(err) == "" {
			t.Errorf("%v, %q: %v", test.u, test.library, err)
		}
	}
}

// Without p11-kit the hint names what is installed.
func TestNoProxy(t *testing.T) {
	p := places{t.TempDir(), "linux", "amd64"}
	touch(t, p.root, "usr/lib/softhsm/libsofthsm2.so")
	_, err := p.find(nil, "")
	if !errors.Is(err, ErrModuleNotFound) || !strings.Contains(signer.Hint(err), "softhsm/libsofthsm2.so") {
		t.Errorf("%v; %s", err, signer.Hint(err))
	}
}
