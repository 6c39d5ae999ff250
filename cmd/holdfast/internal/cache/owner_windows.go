package cache

import (
	"io/fs"
	"os"
)

const noFollow = 0

// On Windows the profile directory's access list is inherited by all below it:
// the user, the system and administrators.
func private(fs.FileInfo) bool { return true }

func trusted(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

func runtimeParents() []string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	return []string{dir}
}
