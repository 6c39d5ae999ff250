// Command bench measures a cold "holdfast credential-process" as a whole
// process, in time and memory, against a floor program that does the least
// such a program could do. Both run in turn in one session, so that what the
// machine does beside them falls on both; what it prints are ratios.
package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
	holdfast, floor := filepath.Join(dir, "holdfast"), filepath.Join(dir, "floor")
	for bin, pkg := range map[string]string{holdfast: "./cmd/holdfast", floor: "./scripts/bench/floor"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %v\n%s", pkg, err, out)
		}
	}
	l, err := newLab(dir, algorithm)
	if err != nil {
		return err
	}
	defer l.server.Close()

	commands := [][]string{
		{holdfast, "credential-process", "--certificate", l.certFile, "--private-key", l.keyFile, "--endpoint", l.server.URL,
			"--trust-anchor-arn", l.in.TrustAnchorARN, "--profile-arn", l.in.ProfileARN, "--role-arn", l.in.RoleARN},
		{floor, l.keyFile, l.server.URL + "/floor"},
	}
	results := make([][]result, len(commands))
	for i := range runs + 1 { // the first run of each warms the page cache
		for c, args := range commands {
			r, err := spawn(args)
			if err != nil {
				return err
			}
			if i > 0 {
				results[c] = append(results[c], r)
			}
		}
	}
	return report(results, algorithm, holdfast)
}

func report(results [][]result, algorithm, binary string) error {
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	var wall, memory []float64
	for i := range results[0] {
		wall = append(wall, float64(results[0][i].Wall)/float64(results[1][i].Wall))
		memory = append(memory, float64(results[0][i].MaxRSS)/float64(results[1][i].MaxRSS))
	}
	column := func(rs []result, f func(result) float64) float64 {
		var v []float64
		for _, r := range rs {
			v = append(v, f(r))
		}
		return median(v)
	}
	ms := func(r result) float64 { return float64(r.Wall) / float64(time.Millisecond) }
	mib := func(r result) float64 { return float64(r.MaxRSS) / 1024 }
	fmt.Printf("cold credential-process, %s key file, %d pairs of runs in turn, medians; %s, %d CPUs\n\n", algorithm, len(wall), runtime.Version(), runtime.NumCPU())
	fmt.Printf("%-22s %10s %10s %10s %8s\n", "whole process", "holdfast", "floor", "ratio", "aim")
	fmt.Printf("%-22s %7.2f ms %7.2f ms %10.2f %8s\n", "time", column(results[0], ms), column(results[1], ms), median(wall), "≤ 1.4")
	fmt.Printf("%-22s %6.1f MiB %6.1f MiB %10.2f %8s\n", "peak memory", column(results[0], mib), column(results[1], mib), median(memory), "≤ 1.3")
	fmt.Printf("%-22s %7.2f MB %29s\n", "binary, stripped", float64(info.Size())/1e6, "≤ 9 MB")
	return nil
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
	server            *httptest.Server
	in                rolesanywhere.SessionInput
	keyFile, certFile string

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
	l := &lab{server: httptest.NewServer(mux), keyFile: filepath.Join(dir, "key.pem"), certFile: filepath.Join(dir, "cert.pem")}

	caKey, err := software.Generate("ec-p256")
	if err != nil {
		return nil, err
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "bench CA"}})
	if err != nil {
		return nil, err
	}
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
