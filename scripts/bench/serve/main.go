// Command serve measures the credential endpoints of "holdfast serve" beside a
// bare net/http handler that returns the same bytes. Both run as processes of
// their own, take turns under the same load, and what is printed are ratios of
// the two in the same moment.
//
//	go run ./scripts/bench/serve
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 31, "rounds of each server")
	length := flag.Duration("length", 300*time.Millisecond, "length of a round")
	clients := flag.Int("clients", 16, "connections")
	bare := flag.String("bare", "", "serve the body at stdin under this path (used by the benchmark itself)")
	flag.Parse()
	if *bare != "" {
		serveBare(*bare)
		return
	}
	if err := bench(*rounds, *clients, *length); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serveBare is the least a server of these bytes could do.
func serveBare(path string) {
	body, err := io.ReadAll(os.Stdin)
	if err == nil {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			fmt.Println(l.Addr())
			mux := http.NewServeMux()
			mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(body)
			})
			err = http.Serve(l, mux)
		}
	}
	fmt.Fprintln(os.Stderr, "bench: bare:", err)
	os.Exit(1)
}

func bench(rounds, clients int, length time.Duration) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "holdfast")
	build := exec.Command("go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w", "-o", binary, "./cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %v\n%s", err, out)
	}
	d, err := startDaemon(dir, binary)
	if err != nil {
		return err
	}
	defer d.stop()

	fmt.Printf("credential endpoint, %d connections, %d rounds of %v each in turn, medians; %s, %d CPUs\n\n", clients, rounds, length, runtime.Version(), runtime.NumCPU())
	fmt.Printf("%-12s %14s %14s %8s %12s %12s %8s\n", "", "holdfast", "net/http", "ratio", "p99", "p99 bare", "ratio")
	for _, e := range d.endpoints {
		if err := compare(d.address, e, rounds, clients, length); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	fmt.Printf("%-12s %38s %34s\n", "aim", "≥ 0.90", "≤ 1.20")
	return nil
}

func compare(address string, e endpoint, rounds, clients int, length time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-bare", e.path)
	cmd.Stdin, cmd.Stderr = strings.NewReader(e.body), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var bareAddress string
	if _, err := fmt.Fscanln(out, &bareAddress); err != nil {
		return err
	}
	bare := endpoint{path: e.path, header: e.header, body: e.body}
	var rate, bareRate, rates, p99, bareP99, p99s []float64
	for i := range rounds + 1 {
		ours, err := load(address, e, clients, length)
		if err != nil {
			return err
		}
		theirs, err := load(bareAddress, bare, clients, length)
		if err != nil {
			return err
		}
		if i == 0 { // both warm up
			continue
		}
		rate, bareRate = append(rate, ours.rate), append(bareRate, theirs.rate)
		p99, bareP99 = append(p99, ours.p99), append(bareP99, theirs.p99)
		rates, p99s = append(rates, ours.rate/theirs.rate), append(p99s, ours.p99/theirs.p99)
	}
	fmt.Printf("%-12s %10.0f r/s %10.0f r/s %8.2f %9.2f ms %9.2f ms %8.2f\n", e.name,
		median(rate), median(bareRate), median(rates), median(p99), median(bareP99), median(p99s))
	return nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
