package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// report prints a row's medians, and those of its ratios to the floor in the
// same turn.
func report(r, floor *row) {
	var wall, memory, ms, mib []float64
	for i, took := range r.results {
		wall = append(wall, float64(took.Wall)/float64(floor.results[i].Wall))
		memory = append(memory, float64(took.MaxRSS)/float64(floor.results[i].MaxRSS))
		ms = append(ms, float64(took.Wall)/float64(time.Millisecond))
		mib = append(mib, float64(took.MaxRSS)/1024)
	}
	fmt.Printf("%-30s %9.2f ms %8.2f %6s %10.1f MiB %8.2f %6s\n", r.name, median(ms), median(wall), r.time, median(mib), median(memory), r.memory)
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
