//go:build cgo

package cryptoki

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A loaderError is what dlopen or LoadLibrary said.
type loaderError string

func (e loaderError) Error() string { return string(e) }

var errNoFunctionList = errors.New("it has no C_GetFunctionList")

func notThere(path string, err error) error {
	hint := "check the path; `holdfast list` tries the modules it finds"
	if errors.Is(err, fs.ErrPermission) {
		hint = "let this user read the file and search its directories"
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return signer.WithHint(fmt.Errorf("%s: %w: %w", path, pkcs11.ErrModuleNotFound, err), hint)
}

// checkWhole refuses a file that was cut short: mapping one ends the process
// instead of the attempt.
func checkWhole(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // the loader will say it better
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	file, err := elf.NewFile(f)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return loaderError("file too short")
	}
	if err != nil {
		return nil
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_LOAD && p.Off+p.Filesz > uint64(info.Size()) {
			return loaderError("file too short")
		}
	}
	return nil
}

// explainLoader adds what the file itself tells about the loader's refusal.
func explainLoader(path string, err error) error {
	var text loaderError
	switch {
	case errors.Is(err, errNoFunctionList):
		return signer.WithHint(fmt.Errorf("%s: %w: %w", path, pkcs11.ErrModuleInvalid, err),
			"it is a library, but no PKCS#11 module: name the module's file")
	case !errors.As(err, &text):
		return signer.WithHint(fmt.Errorf("%s: %w: %w", path, pkcs11.ErrModuleInvalid, err), "install the module's package again, or name another module")
	}
	// The loader begins most of its messages with the path.
	text = loaderError(strings.ReplaceAll(strings.TrimPrefix(string(text), path+": "), "\n", " "))
	what, hint := inspect(path, string(text))
	if what != "" {
		what = " (" + what + ")"
	}
	return signer.WithHint(fmt.Errorf("%s: %w: %w%s", path, pkcs11.ErrModuleInvalid, text, what), hint)
}

// inspect returns what is odd about the file, and the mend.
func inspect(path, text string) (what, hint string) {
	f, err := os.Open(path)
	if err != nil {
		return "", "let this user read the file"
	}
	defer f.Close()
	magic := make([]byte, 4)
	if n, _ := f.ReadAt(magic, 0); n < len(magic) || runtime.GOOS == "linux" && !bytes.Equal(magic, []byte(elf.ELFMAG)) {
		return "not a shared library", "name the module's file, such as " + example()
	}
	if runtime.GOOS == "linux" {
		if file, err := elf.NewFile(f); err == nil {
			if want := machine(); want != elf.EM_NONE && file.Machine != want {
				return fmt.Sprintf("built for %s, this program for %s", file.Machine, want),
					"install the module for " + runtime.GOARCH + ", or run the program built for the module's architecture"
			}
			libs, _ := file.ImportedLibraries()
			if module, own := libc(libs), ownLibc(); module != "" && own != "" && module != own {
				return "built for " + module + ", this program for " + own,
					"use a module and a holdfast-pkcs11 built for the same C library"
			}
		}
	}
	switch {
	case strings.Contains(text, "cannot open shared object file"), strings.Contains(text, "image not found"):
		return "", "install the library that the module needs: ldd " + path
	case strings.Contains(text, "version `GLIBC"), strings.Contains(text, "symbol"):
		return "", "the module was built for another system: install the package of this one"
	case strings.Contains(text, "invalid ELF header"), strings.Contains(text, "file too short"), strings.Contains(text, "truncated"):
		return "", "the file is damaged: install the module's package again"
	}
	return "", "install the module's package for this system, or name another module"
}

func example() string {
	if dirs := pkcs11.ModuleDirectories(); len(dirs) > 0 {
		return dirs[0] + "/opensc-pkcs11.so"
	}
	return "opensc-pkcs11.so"
}

func machine() elf.Machine {
	return map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "386": elf.EM_386, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM,
		"ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390, "loong64": elf.EM_LOONGARCH,
	}[runtime.GOARCH]
}

// libc names the C library among the libraries a file imports.
func libc(libs []string) string {
	for _, l := range libs {
		switch {
		case l == "libc.so.6":
			return "glibc"
		case strings.HasPrefix(l, "libc.musl") || l == "libc.so":
			return "musl"
		}
	}
	return ""
}

func ownLibc() string {
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer self.Close()
	libs, _ := self.ImportedLibraries()
	return libc(libs)
}
