package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// caught are the signals that end a lab without a command, and that go on to
// the command where there is one. While they are caught, none of them, nor a
// closed pipe at stdout, keeps the lab from deleting its files.
type caught struct{ c, pipe chan os.Signal }

func catchSignals() caught {
	c, pipe := make(chan os.Signal, 8), make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE) // not Ignore: the command would inherit that
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) { // nohup(1), a shell's background job
			signal.Notify(c, s)
		}
	}
	return caught{c, pipe}
}

func (s caught) stop() {
	signal.Stop(s.c)
	signal.Stop(s.pipe)
}

// runCommand runs args with env and returns its exit code. A command that
// cannot be started is an error.
func runCommand(ctx context.Context, args, env []string, signals caught, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	path, err := lookPath(args[0], env)
	if err != nil {
		return startFailure(args[0], err)
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, stdin, stdout, stderr
	if err := cmd.Start(); err != nil {
		return startFailure(args[0], err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals.c:
			if !fromTerminal(s) {
				_ = cmd.Process.Signal(s) // the command may just have ended
			}
		case err := <-done:
			return exitCode(cmd.ProcessState, err)
		}
	}
}

// fromTerminal reports whether the terminal sent the signal: to every process
// in the foreground, so that the command has it already.
func fromTerminal(s os.Signal) bool {
	return (s == os.Interrupt || s == syscall.SIGQUIT) && term.IsTerminal(int(os.Stdin.Fd()))
}

func startFailure(name string, err error) (int, error) {
	err = fmt.Errorf("run %s: %w", name, err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound, err
	}
	return exitNotExecutable, err
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return exitFailure, err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// lookPath is exec.LookPath with env's PATH, which has holdfast on it.
func lookPath(name string, env []string) (string, error) {
	if filepath.Base(name) != name {
		return name, nil
	}
	dirs := filepath.SplitList(lookup(env, "PATH"))
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !filepath.IsAbs(dir) })
	denied := false
	for _, dir := range dirs {
		path, err := exec.LookPath(filepath.Join(dir, name))
		if err == nil {
			return path, nil
		}
		denied = denied || errors.Is(err, fs.ErrPermission)
	}
	if denied {
		return "", fs.ErrPermission
	}
	return "", fmt.Errorf("%w: looked in %s", exec.ErrNotFound, strings.Join(dirs, string(filepath.ListSeparator)))
}
