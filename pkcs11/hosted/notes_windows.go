package hosted

import (
	"os"
	"path/filepath"
)

func stateDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "holdfast")
}

// isPrivate trusts the user's profile, which other users cannot enter.
func isPrivate(dir string) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir()
}
