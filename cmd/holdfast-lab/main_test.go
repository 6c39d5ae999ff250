package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// labCommand is holdfast-lab, as a process of its own.
func labCommand(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd = exec.Command(program("holdfast-lab"), args...)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 10 * time.Second
	return cmd, stdout, stderr
}

func wait(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func TestExitCodes(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notExecutable, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"--", "true"}, 0, "holdfast-lab: arn:aws:iam::123456789012:role/edge-workload in eu-central-1"},
		{[]string{"--quiet", "--", "sh", "-c", "echo said >&2; exit 3"}, 3, "said\n"},
		{[]string{"--quiet", "--", "sh", "-c", "kill -TERM $$"}, 143, ""},
		{[]string{"--quiet", "--", "sh", "-c", "kill -KILL $$"}, 137, ""},
		{[]string{"--quiet", "--", "no-such-command"}, 127, "run no-such-command: "},
		{[]string{"--quiet", "--", notExecutable}, 126, "permission denied"},
		{[]string{"--help"}, 0, ""},
		{[]string{"true"}, 125, `stray argument "true": the command comes after --`},
		{[]string{"stray", "--", "true"}, 125, `stray argument "stray"`},
		{[]string{"--"}, 125, "no command after --"},
		{[]string{"--nothing"}, 125, "unknown flag: --nothing"},
		{[]string{"--key", "dsa", "--", "true"}, 125, "dsa"},
		{[]string{"--subject", "device", "--", "true"}, 125, "--subject"},
		{[]string{"--session-duration", "0", "--", "true"}, 125, "--session-duration"},
		{[]string{"--session-duration", "43201", "--", "true"}, 125, "--session-duration"},
		{[]string{"--session-duration", "1.5s", "--", "true"}, 125, "whole seconds"},
		{[]string{"--region", "Europe", "--", "true"}, 125, "--region"},
		{[]string{"--role", "a b", "--", "true"}, 125, "--role"},
		{[]string{"--latency", "-1s", "--", "true"}, 125, "--latency"},
		{[]string{"--fault", "fire", "--", "true"}, 125, "--fault"},
		{[]string{"--holdfast", "/nonexistent/holdfast", "--", "true"}, 125, "/nonexistent/holdfast"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			isolate(t)
			cmd, stdout, stderr := labCommand(c.args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			code := wait(t, cmd)
			if code != c.code || !strings.Contains(stderr.String(), c.stderr) || c.stderr == "" && stderr.Len() > 0 {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s\nwant: %s", code, c.code, stdout, stderr, c.stderr)
			}
		})
	}
}

func TestHoldfastIsMissing(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	alone := filepath.Join(dir, "holdfast-lab")
	text, err := os.ReadFile(program("holdfast-lab"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(alone, text, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(alone, "--", "true")
	cmd.Env = append(os.Environ(), "PATH="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), "looked for "+filepath.Join(dir, "holdfast")+" and then on PATH") ||
		!strings.Contains(string(out), "holdfast-lab: hint: ") {
		t.Errorf("%v: %s", err, out)
	}

	cmd = exec.Command(alone, "--quiet", "--", "/bin/sh", "-c", "command -v holdfast")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program("holdfast")))
	if out, err = cmd.CombinedOutput(); err != nil || string(out) != program("holdfast")+"\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSignalsGoToTheCommand(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			isolate(t)
			heed(t, s)
			cmd := exec.Command(program("holdfast-lab"), "--quiet", "--", "sh", "-c", `trap "exit 7" TERM INT HUP; echo ready; while :; do sleep 0.05; done`)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
				t.Fatalf("%q %v", line, err)
			}
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if code := wait(t, cmd); code != 7 {
				t.Errorf("exit code %d, want the command's 7", code)
			}
		})
	}
}

// heed has programs that the test starts heed a signal that this process was
// started to ignore, as by nohup(1): what a process handles is not ignored in
// those that it starts.
func heed(t *testing.T, s os.Signal) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, s)
	t.Cleanup(func() { signal.Stop(c) })
}

func TestStaysUpWithoutACommand(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			isolate(t)
			heed(t, s)
			t.Setenv("AWS_SECRET_ACCESS_KEY", "of somebody")
			cmd := exec.Command(program("holdfast-lab"), "--session-duration", "60")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			var script strings.Builder
			for lines := bufio.NewScanner(stdout); lines.Scan(); {
				script.WriteString(lines.Text() + "\n")
				if strings.HasPrefix(lines.Text(), "unset ") { // the last
					break
				}
			}
			shell := exec.Command("sh", "-euc", script.String()+`
test -z "${AWS_SECRET_ACCESS_KEY-}"
echo "$AWS_ENDPOINT_URL_STS"
holdfast credential-process --certificate "$HOLDFAST_LAB_CERTIFICATE" --private-key "$HOLDFAST_LAB_PRIVATE_KEY" \
  --trust-anchor-arn "$HOLDFAST_LAB_TRUST_ANCHOR_ARN" --profile-arn "$HOLDFAST_LAB_PROFILE_ARN" --role-arn "$HOLDFAST_LAB_ROLE_ARN"`)
			out, err := shell.CombinedOutput()
			if err != nil || !strings.Contains(string(out), `"AccessKeyId":"ASIA`) {
				t.Fatalf("%v: %s\n%s", err, out, script.String())
			}
			url, _, _ := strings.Cut(string(out), "\n")
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stdout)
			if err != nil || len(rest) > 0 {
				t.Errorf("more on stdout: %q %v", rest, err)
			}
			if code := wait(t, cmd); code != 0 {
				t.Errorf("exit code %d: %s", code, &stderr)
			}
			if strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("stderr: %s", &stderr)
			}
			if res, err := http.Get(url); err == nil {
				res.Body.Close()
				t.Error("STS still answers")
			}
		})
	}
}

func TestNobodyReads(t *testing.T) {
	isolate(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd, _, stderr := labCommand("--quiet")
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, cmd); code != 125 || !strings.Contains(stderr.String(), "print the environment") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestScripts(t *testing.T) {
	tool(t, "aws", "apt-get install awscli")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", programs+string(filepath.ListSeparator)+e.Getenv("PATH"))
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			return nil
		},
	})
}
