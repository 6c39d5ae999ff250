// Command bench measures a cold "holdfast credential-process" as a whole
// process, in time and memory, against a floor program that does the least
// such a program could do with a key file. All run in turn, so that what the
// machine does beside them falls on all; what it prints are ratios.
package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-measure" {
		measure(os.Args[2:])
		return
	}
	runs := flag.Int("n", 60, "counted runs of each program")
	key := flag.String("key", "ec-p256", "type of key")
	flag.Parse()
	if err := bench(*runs, *key); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(runs int, algorithm string) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for pkg, cgo := range map[string]string{"./cmd/holdfast": "0", "./scripts/bench/floor": "0", "./cmd/holdfast-pkcs11": "1"} {
		build := exec.Command("go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w", "-o", dir+"/", pkg) // as in the Makefile
		build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %v\n%s", pkg, err, out)
		}
	}
	l, err := newLab(dir, algorithm)
	if err != nil {
		return err
	}
	defer l.server.Close()
	if err := l.addToken(); err != nil {
		return err
	}
	commands := [][]string{
		{filepath.Join(dir, "floor"), l.keyFile, l.server.URL + "/floor"},
		l.credentialProcess("--no-cache", "--certificate", l.certFile, "--private-key", l.keyFile),
		l.credentialProcess("--no-cache", "--certificate", l.tokenURI),
		l.credentialProcess("--certificate", l.certFile, "--private-key", l.keyFile, "--cache", "keyring"),
	}
	defer func() { _, _ = output(l.holdfast, "cache", "clear") }() // this run's sessions are in the user's keyring
	results := make([][]result, len(commands))
	for i := range runs + 1 { // the first run of each warms the page cache
		for _, c := range []int{1, 2, 3, 0} { // the floor replays what holdfast sent
			r, err := spawn(commands[c])
			if err != nil {
				return err
			}
			if i > 0 {
				results[c] = append(results[c], r)
			}
		}
	}
	info, err := os.Stat(filepath.Join(dir, "holdfast"))
	if err != nil {
		return err
	}
	fmt.Printf("cold credential-process, %s, %d runs of each in turn, medians; %s, %d CPUs\n\n", algorithm, runs, runtime.Version(), runtime.NumCPU())
	fmt.Printf("%-30s %12s %8s %6s %14s %8s %6s\n", "whole process", "time", "ratio", "aim", "peak memory", "ratio", "aim")
	report("floor", results[0], results[0], "", "")
	report("key file", results[1], results[0], "≤ 1.4", "≤ 1.3")
	report("SoftHSM token", results[2], results[0], "≤ 3", "")
	report("key file, cached session", results[3], results[0], "≤ 0.8", "")
	fmt.Printf("\nholdfast, stripped: %.2f MB (aim ≤ 9)\n", float64(info.Size())/1e6)
	return nil
}

func report(name string, of, floor []result, timeAim, memoryAim string) {
	var wall, memory, ms, mib []float64
	for i, r := range of {
		wall = append(wall, float64(r.Wall)/float64(floor[i].Wall))
		memory = append(memory, float64(r.MaxRSS)/float64(floor[i].MaxRSS))
		ms = append(ms, float64(r.Wall)/float64(time.Millisecond))
		mib = append(mib, float64(r.MaxRSS)/1024)
	}
	fmt.Printf("%-30s %9.2f ms %8.2f %6s %10.1f MiB %8.2f %6s\n", name, median(ms), median(wall), timeAim, median(mib), median(memory), memoryAim)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// result of one run: wall time, and peak memory in KiB.
type result struct {
	Wall   time.Duration
	MaxRSS int64
}

// spawn runs a command under a small copy of this program: the kernel counts
// towards a child's peak memory what its parent held when it was forked.
func spawn(args []string) (result, error) {
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command(self, append([]string{"-measure"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return result{}, fmt.Errorf("%s: %v: %s", args[0], err, stderr.String())
	}
	var r result
	return r, json.Unmarshal(out.Bytes(), &r)
}

func measure(args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		fmt.Fprintln(os.Stderr, "no resource usage on this platform")
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(result{wall, usage.Maxrss})
}

type lab struct {
	dir, holdfast     string
	ca                *enroll.CA
	server            *httptest.Server
	in                rolesanywhere.SessionInput
	keyFile, certFile string
	tokenURI          string

	mu       sync.Mutex
	last     *http.Request
	lastBody []byte
}

// newLab starts the strict endpoint. Its path /floor does for the floor program
// what /sessions does for holdfast: it verifies a genuine request, the last that
// holdfast sent, and answers with a session.
func newLab(dir, algorithm string) (*lab, error) {
	endpoint := rolesanywheretest.NewUnstartedServer()
	mux := http.NewServeMux()
	l := &lab{dir: dir, holdfast: filepath.Join(dir, "holdfast"), server: httptest.NewServer(mux), keyFile: filepath.Join(dir, "key.pem"), certFile: filepath.Join(dir, "cert.pem")}

	caKey, err := software.Generate("ec-p256")
	if err != nil {
		return nil, err
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "bench CA"}})
	if err != nil {
		return nil, err
	}
	l.ca = ca
	key, err := software.Generate(algorithm)
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "bench"}})
	if err != nil {
		return nil, err
	}
	text, err := software.MarshalPrivateKey(key, signer.Secret{})
	if err != nil {
		return nil, err
	}
	if err := software.WriteKeyFile(l.keyFile, text); err != nil {
		return nil, err
	}
	if err := os.WriteFile(l.certFile, enroll.EncodePEM(leaf), 0o644); err != nil {
		return nil, err
	}

	if l.in.TrustAnchorARN, err = endpoint.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "bench", Certificates: []*x509.Certificate{ca.Certificate}}); err != nil {
		return nil, err
	}
	l.in.RoleARN = endpoint.AddRole(rolesanywheretest.Role{Name: "bench"})
	l.in.ProfileARN = endpoint.AddProfile(rolesanywheretest.Profile{Name: "bench", RoleARNs: []string{l.in.RoleARN}})

	mux.HandleFunc("/sessions", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.last, l.lastBody = r.Clone(context.WithoutCancel(r.Context())), body
		l.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		endpoint.ServeHTTP(w, r)
	})
	mux.HandleFunc("/floor", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		l.mu.Lock()
		replay := l.last.Clone(r.Context())
		replay.Body = io.NopCloser(bytes.NewReader(l.lastBody))
		l.mu.Unlock()
		endpoint.ServeHTTP(w, replay)
	})
	return l, nil
}

func (l *lab) credentialProcess(identity ...string) []string {
	return append([]string{l.holdfast, "credential-process", "--endpoint", l.server.URL,
		"--trust-anchor-arn", l.in.TrustAnchorARN, "--profile-arn", l.in.ProfileARN, "--role-arn", l.in.RoleARN}, identity...)
}

// addToken makes a SoftHSM token with a P-256 key and its certificate.
func (l *lab) addToken() error {
	conf, pin := filepath.Join(l.dir, "softhsm2.conf"), filepath.Join(l.dir, "pin")
	if err := errors.Join(
		os.Mkdir(filepath.Join(l.dir, "tokens"), 0o700),
		os.WriteFile(conf, []byte("directories.tokendir = "+filepath.Join(l.dir, "tokens")+"\n"), 0o600),
		os.WriteFile(pin, []byte("1234"), 0o600),
		os.Setenv("SOFTHSM2_CONF", conf),
	); err != nil {
		return err
	}
	l.tokenURI = "pkcs11:token=bench;object=device?module-name=softhsm2&pin-source=" + pin
	if _, err := output("softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", "1234", "--so-pin", "1234"); err != nil {
		return fmt.Errorf("%w (apt-get install softhsm2)", err)
	}
	if _, err := output(l.holdfast, "key", "create", "--private-key", l.tokenURI); err != nil {
		return err
	}
	text, err := output(l.holdfast, "csr", "--private-key", l.tokenURI, "--subject", "CN=bench")
	if err != nil {
		return err
	}
	csr, err := enroll.ParseRequest(text)
	if err != nil {
		return err
	}
	leaf, err := l.ca.Sign(csr, enroll.LeafOptions{})
	if err != nil {
		return err
	}
	file := filepath.Join(l.dir, "token.crt")
	if err := os.WriteFile(file, enroll.EncodePEM(leaf), 0o644); err != nil {
		return err
	}
	_, err = output(l.holdfast, "certificate", "install", "--certificate", file, "--private-key", l.tokenURI)
	return err
}

func output(name string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, stderr.String())
	}
	return out, nil
}
