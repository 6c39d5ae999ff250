package pkcs11

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// FindModule returns the path of the module to load: u's module-path; else
// u's module-name in the usual directories; else library, a path or the name
// of a file in the usual directories; else p11-kit's proxy, which stands for
// every module the system knows. u may be nil and library empty.
//
// Of the first of these that is given nothing else is tried: a module that was
// named and does not exist is an error that wraps [ErrModuleNotFound] and says
// where it was looked for.
func FindModule(u *URI, library string) (string, error) {
	return places{root: "/", goos: runtime.GOOS, goarch: runtime.GOARCH}.find(u, library)
}

// ModuleDirectories returns the directories that [FindModule] looks into.
func ModuleDirectories() []string {
	return places{root: "/", goos: runtime.GOOS, goarch: runtime.GOARCH}.directories()
}

// places is a file system laid out for an operating system.
type places struct{ root, goos, goarch string }

func (p places) find(u *URI, library string) (string, error) {
	if u == nil {
		u = &URI{}
	}
	name, named := u.Get(AttrModuleName)
	if path, ok := u.Get(AttrModulePath); ok {
		return p.byPath(path, name)
	}
	if named {
		return p.byName(AttrModuleName, name, p.directories())
	}
	if library != "" {
		if strings.ContainsRune(library, '/') || strings.ContainsRune(library, filepath.Separator) {
			return p.byPath(library, "")
		}
		if exists(library) { // in the working directory
			return filepath.Abs(library)
		}
		return p.byName("library", library, p.directories())
	}
	path, err := p.byName("p11-kit's proxy", "p11-kit-proxy", p.directories())
	if err != nil {
		hint := "name the module with --pkcs11-lib or module-path=, or install p11-kit"
		if seen := p.installed(); len(seen) > 0 {
			hint = "name one with --pkcs11-lib or module-path=; installed here: " + strings.Join(seen, ", ")
		}
		return "", signer.WithHint(err, hint)
	}
	return path, nil
}

// byPath takes the path of a module or of a directory with modules.
func (p places) byPath(path, name string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", signer.WithHint(fmt.Errorf("%w: %v", ErrModuleNotFound, err), "check the path, or name another module")
	}
	if !info.IsDir() {
		return path, nil
	}
	if name == "" {
		return "", signer.WithHint(fmt.Errorf("%w: %s is a directory", ErrModuleNotFound, path),
			"name the module's file, or add module-name= to module-path=")
	}
	return p.byName(AttrModuleName, name, []string{path})
}

func (p places) byName(what, name string, dirs []string) (string, error) {
	if name == "" || strings.ContainsAny(name, `/\`+"\x00") {
		return "", signer.WithHint(fmt.Errorf("%w: %s %q is not the name of a module", ErrModuleNotFound, what, name), "give a path as module-path=")
	}
	for _, dir := range dirs {
		for _, file := range p.fileNames(name) {
			if path := filepath.Join(dir, file); exists(path) {
				return path, nil
			}
		}
	}
	return "", signer.WithHint(
		fmt.Errorf("%w: %s %q, looked for as %s in %s", ErrModuleNotFound, what, name,
			strings.Join(p.fileNames(name), ", "), strings.Join(dirs, ", ")),
		"install the module's package, or give its path with --pkcs11-lib or module-path=")
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func (p places) suffixes() []string {
	switch p.goos {
	case "windows":
		return []string{".dll"}
	case "darwin":
		return []string{".dylib", ".so"}
	}
	return []string{".so"}
}

// fileNames returns what the file of the module called name may be called.
func (p places) fileNames(name string) []string {
	for _, s := range p.suffixes() {
		if strings.HasSuffix(name, s) || strings.Contains(name, s+".") {
			return []string{name}
		}
	}
	var names []string
	for _, s := range p.suffixes() {
		names = append(names, name+s)
		if p.goos != "windows" && !strings.HasPrefix(name, "lib") {
			names = append(names, "lib"+name+s)
		}
	}
	return names
}

func (p places) directories() []string {
	var dirs []string
	add := func(d ...string) {
		for _, d := range d {
			dirs = append(dirs, filepath.Join(p.root, filepath.FromSlash(d)))
		}
	}
	switch p.goos {
	case "windows":
		for _, d := range []string{os.Getenv("SystemRoot") + `\System32`, os.Getenv("ProgramFiles") + `\OpenSC Project\OpenSC\pkcs11`, os.Getenv("SystemDrive") + `\SoftHSM2\lib`} {
			dirs = append(dirs, filepath.Clean(d))
		}
		return dirs
	case "darwin":
		add("opt/homebrew/lib/pkcs11", "opt/homebrew/lib/softhsm", "opt/homebrew/opt/softhsm/lib/softhsm", "opt/homebrew/lib",
			"usr/local/lib/pkcs11", "usr/local/lib/softhsm", "usr/local/opt/softhsm/lib/softhsm", "usr/local/lib", "Library/OpenSC/lib")
		return dirs
	}
	libs := []string{"usr/lib64", "usr/lib", "usr/local/lib", "usr/local/lib64"}
	if t := triple(p.goarch); t != "" && p.goos == "linux" {
		libs = slices.Insert(libs, 0, "usr/lib/"+t)
	}
	for _, sub := range []string{"/pkcs11", "/softhsm", "/opensc", ""} {
		for _, l := range libs {
			add(l + sub)
		}
	}
	add("opt/cloudhsm/lib", "usr/safenet/lunaclient/lib", "opt/nfast/toolkits/pkcs11")
	return dirs
}

// triple is Debian's name for an architecture.
func triple(goarch string) string {
	return map[string]string{
		"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "386": "i386-linux-gnu", "arm": "arm-linux-gnueabihf",
		"ppc64le": "powerpc64le-linux-gnu", "riscv64": "riscv64-linux-gnu", "s390x": "s390x-linux-gnu", "loong64": "loongarch64-linux-gnu",
	}[goarch]
}

// installed returns the modules in the directories that hold nothing else.
func (p places) installed() []string {
	var found []string
	real := map[string]bool{}
	for _, dir := range p.directories() {
		base := filepath.Base(dir)
		if base != "pkcs11" && base != "softhsm" {
			continue
		}
		for _, suffix := range p.suffixes() {
			files, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
			for _, f := range files {
				target, err := filepath.EvalSymlinks(f)
				if err != nil || real[target] || strings.Contains(f, "spy") {
					continue
				}
				real[target] = true
				found = append(found, f)
			}
		}
	}
	return found
}
