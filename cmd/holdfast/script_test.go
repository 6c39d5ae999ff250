package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"holdfast": scriptedMain})
}

// buildHost builds holdfast-pkcs11 into a folder and returns that.
func buildHost(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "../holdfast-pkcs11")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build holdfast-pkcs11: %v\n%s", err, out)
	}
	return dir
}

// logDir is where every holdfast that a script starts leaves its stderr.
const logDir = "HOLDFAST_SCRIPT_LOG"

// raceEnv keeps a program that was built with -race from sleeping for a second
// before it ends.
const raceEnv = "GORACE=atexit_sleep_ms=0"

// scriptedMain is main with --debug always on. What that adds goes only to the
// log that TestScripts searches for secrets, so that scripts read as users'
// terminals do.
func scriptedMain() {
	args := os.Args[1:]
	if takesDebug(args) && !slices.Contains(args, "--debug") {
		args = append(slices.Clone(args), "--debug")
	}
	log, err := os.CreateTemp(os.Getenv(logDir), "stderr-")
	if err != nil {
		panic(err)
	}
	visible := &withoutDebug{w: os.Stderr, keep: slices.Contains(os.Args, "--debug")}
	code := run(context.Background(), args, os.Stdout, io.MultiWriter(log, visible))
	log.Close()
	os.Exit(code)
}

func takesDebug(args []string) bool {
	if len(args) > 1 && args[0] == "csr" && slices.Contains([]string{"verify", "challenge", "seal"}, args[1]) {
		return false
	}
	return len(args) > 0 && (slices.Contains([]string{"credential-process", "sign-string", "read-certificate-data", "csr", "list"}, args[0]) ||
		len(args) > 1 && slices.Contains([]string{"ca sign", "ca init", "key create", "key show", "key pcrs", "key approve", "key reseal", "certificate install"}, args[0]+" "+args[1])) && !slices.Contains(args, "--help")
}

// withoutDebug drops slog's lines; each comes as one write.
type withoutDebug struct {
	w    io.Writer
	keep bool
}

func (d *withoutDebug) Write(p []byte) (int, error) {
	if !d.keep && bytes.HasPrefix(p, []byte("time=")) {
		return len(p), nil
	}
	return d.w.Write(p)
}

// passphraseMark is part of every passphrase in the scripts.
const passphraseMark = "sesame"

// TestScripts runs testdata/script, then searches all that holdfast wrote to
// stderr in them, debug messages included, for any secret that there was.
func TestScripts(t *testing.T) {
	logs, hostDir := t.TempDir(), buildHost(t)
	secrets := &secretList{}
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "../../testdata/script",
			Setup: func(env *testscript.Env) error {
				env.Setenv("PATH", hostDir+string(os.PathListSeparator)+env.Getenv("PATH"))
				return setupScript(env, logs, secrets)
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"anchor":   cmdAnchor,
				"fault":    cmdFault,
				"requests": cmdRequests,
				"expiry":   cmdExpiry,
				"running":  cmdRunning,
				"oneline":  cmdOneLine,
				"tpm":      cmdTPM,
				"graft":    cmdGraft,
				"forge":    cmdForge,
			},
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
		})
	})
	searchForSecrets(t, logs, secrets)
}

func searchForSecrets(t *testing.T, logs string, secrets *secretList) {
	files, err := filepath.Glob(filepath.Join(logs, "stderr-*"))
	if err != nil {
		t.Fatal(err)
	}
	bytesRead := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bytesRead += len(text)
		for _, s := range secrets.values {
			if bytes.Contains(text, []byte(s.text)) {
				t.Errorf("%s is on stderr:\n%s", s.what, text)
			}
		}
	}
	t.Logf("%d secrets searched for in the stderr of %d runs, %d bytes", len(secrets.values), len(files), bytesRead)
	if only := flag.Lookup("test.run"); only.Value.String() != "" {
		return
	}
	if len(files) < 50 || len(secrets.values) < 50 || bytesRead < 10_000 {
		t.Errorf("too little was collected to prove anything")
	}
}

type secret struct{ what, text string }

type secretList struct {
	mu     sync.Mutex
	values []secret
}

func (l *secretList) add(what, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values = append(l.values, secret{what, text})
}

type serverKey struct{}

// setupScript gives a script its own endpoint, with a role and a profile. The
// trust anchor is made by the command "anchor", from a CA's certificate.
func setupScript(env *testscript.Env, logs string, secrets *secretList) error {
	srv := rolesanywheretest.NewUnstartedServer()
	srv.Start()
	env.Values[serverKey{}] = srv
	env.Values[tpmsKey{}] = scriptTPMs{}
	role := srv.AddRole(rolesanywheretest.Role{Name: "edge"})
	profile := srv.AddProfile(rolesanywheretest.Profile{Name: "edge", RoleARNs: []string{role}})
	testdata, err := filepath.Abs("../../testdata")
	if err != nil {
		return err
	}
	env.Vars = append(env.Vars,
		"TESTDATA="+testdata,
		"XDG_STATE_HOME="+filepath.Join(env.WorkDir, ".state"),
		logDir+"="+logs, cacheEnv+"=off", raceEnv,
		"ENDPOINT="+srv.URL, "AWS_ENDPOINT_URL_ROLESANYWHERE="+srv.URL,
		"ROLE="+role, "PROFILE="+profile,
		"ANCHOR=arn:aws:rolesanywhere:us-east-1:123456789012:trust-anchor/00000000-0000-0000-0000-000000000000",
	)
	for _, p := range []string{passphraseMark, base64.StdEncoding.EncodeToString([]byte(passphraseMark)), hex.EncodeToString([]byte(passphraseMark))} {
		secrets.add("a passphrase", p)
	}
	env.Defer(func() {
		srv.Close()
		for _, r := range srv.Requests() {
			if s, ok := srv.Session(r.AccessKeyID); ok {
				secrets.add("a secret access key", s.SecretAccessKey)
				secrets.add("a session token", s.SessionToken)
			}
		}
		collectKeys(env.WorkDir, secrets)
	})
	return nil
}

// collectKeys takes every line of every private key that a script left.
func collectKeys(dir string, secrets *secretList) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("PRIVATE KEY-----")) {
			return nil
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		inKey := false
		for lines.Scan() {
			line := lines.Text()
			if strings.HasPrefix(line, "-----") {
				inKey = strings.Contains(line, "BEGIN") && strings.Contains(line, "PRIVATE KEY")
			} else if inKey && len(line) >= 40 {
				secrets.add("a line of "+path, line)
			}
		}
		return nil
	})
}

func server(ts *testscript.TestScript) *rolesanywheretest.Server {
	return ts.Value(serverKey{}).(*rolesanywheretest.Server)
}

// anchor FILE makes a trust anchor of a CA's certificate and sets $ANCHOR.
func cmdAnchor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: anchor FILE")
	}
	block, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	if block == nil {
		ts.Fatalf("%s: no PEM", args[0])
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	ts.Check(err)
	arn, err := server(ts).AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: args[0], Certificates: []*x509.Certificate{cert}})
	ts.Check(err)
	ts.Setenv("ANCHOR", arn)
}

// fault FAULT... befalls the next requests; fault always FAULT all of them.
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fault [always] FAULT...")
	}
	always := args[0] == "always"
	if always {
		args = args[1:]
	}
	for _, a := range args {
		f, err := rolesanywheretest.ParseFault(strings.TrimPrefix(a, "none"))
		ts.Check(err)
		if always {
			server(ts).SetFault(f)
		} else {
			server(ts).Inject(f)
		}
	}
}

// requests N checks how many requests the endpoint has seen so far.
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: requests N")
	}
	if n := len(server(ts).Requests()); strconv.Itoa(n) != args[0] {
		ts.Fatalf("the endpoint saw %d requests, want %s", n, args[0])
	}
}

// expiry MIN MAX checks that the Expiration on stdout lies that far ahead.
func cmdExpiry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: expiry MIN MAX")
	}
	shortest, err := time.ParseDuration(args[0])
	ts.Check(err)
	longest, err := time.ParseDuration(args[1])
	ts.Check(err)
	_, after, _ := strings.Cut(ts.ReadFile("stdout"), `"Expiration":"`)
	text, _, _ := strings.Cut(after, `"`)
	at, err := time.Parse("2006-01-02T15:04:05Z", text)
	ts.Check(err)
	if left := time.Until(at); left < shortest || left > longest {
		ts.Fatalf("credentials live %v, want %v to %v", left, shortest, longest)
	}
}

// running PROGRAM fails if a process of that name runs with this script's
// folder in its environment, ! running if none does.
func cmdRunning(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] running PROGRAM")
	}
	mark := []byte("WORK=" + ts.Getenv("WORK"))
	var found bool
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		env, err1 := os.ReadFile(file)
		name, err2 := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
		if err1 == nil && err2 == nil && bytes.Contains(env, mark) && strings.HasPrefix(args[0], strings.TrimSpace(string(name))) {
			found = true
		}
	}
	if found == neg {
		ts.Fatalf("%s running: %v", args[0], found)
	}
}

// oneline checks that the last command said just one line on stderr and
// nothing on stdout.
func cmdOneLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: oneline")
	}
	stderr, stdout := ts.ReadFile("stderr"), ts.ReadFile("stdout")
	if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "holdfast: error: ") || stdout != "" {
		ts.Fatalf("stderr %q, stdout %q; want one line of error and nothing", stderr, stdout)
	}
}

func TestExitCodesAreDocumented(t *testing.T) {
	for _, code := range []int{exitOK, exitFailure, exitUsage, exitIdentity, exitRefused, exitPassing} {
		if !strings.Contains(exitCodesHelp, fmt.Sprintf("\n  %d  ", code)) {
			t.Errorf("exit code %d is not in the help", code)
		}
	}
}
