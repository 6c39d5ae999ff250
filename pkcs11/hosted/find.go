package hosted

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// ErrNoHost: there is no holdfast-pkcs11 to run the module.
var ErrNoHost = errors.New("holdfast-pkcs11 was not found")

const installHint = "install the holdfast-pkcs11 of the same release beside holdfast, or in ../libexec/holdfast"

// findProgram returns the path of the host program.
func findProgram(given string) (string, error) {
	if given != "" {
		path, err := exec.LookPath(given)
		if err != nil {
			return "", signer.WithHint(fmt.Errorf("%w: %w", ErrNoHost, err), installHint)
		}
		return path, nil
	}
	name := "holdfast-pkcs11"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	var tried []string
	if self, err := os.Executable(); err == nil {
		places := []string{filepath.Dir(self)}
		if real, err := filepath.EvalSymlinks(self); err == nil && filepath.Dir(real) != places[0] {
			places = append(places, filepath.Dir(real))
		}
		for _, dir := range places {
			for _, path := range []string{filepath.Join(dir, name), filepath.Join(dir, "..", "libexec", "holdfast", name)} {
				if path, err := exec.LookPath(path); err == nil {
					return path, nil
				}
				tried = append(tried, path)
			}
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", signer.WithHint(
		fmt.Errorf("%w: PKCS#11 modules run in it; looked for %s and in PATH", ErrNoHost, strings.Join(tried, ", ")),
		installHint)
}
