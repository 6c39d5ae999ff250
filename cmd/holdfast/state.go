package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// stateDir is where holdfast keeps what should outlast a restart and is no
// secret: systemd's $STATE_DIRECTORY, else $XDG_STATE_HOME/holdfast, for root
// /var/lib/holdfast, else ~/.local/state/holdfast. It may not exist yet.
func stateDir() (string, error) {
	if dirs := os.Getenv("STATE_DIRECTORY"); dirs != "" {
		dir, _, _ := strings.Cut(dirs, ":")
		return dir, nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "holdfast"), nil
	}
	switch {
	case runtime.GOOS == "windows" || runtime.GOOS == "darwin":
		dir, err := os.UserConfigDir()
		return filepath.Join(dir, "holdfast"), err
	case os.Getuid() == 0:
		return "/var/lib/holdfast", nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "holdfast"), err
}
