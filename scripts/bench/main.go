// Command bench measures a cold "holdfast credential-process" as a whole
// process, in time and memory, against a floor program that does the least
// such a program could do with a key file. All run in turn, so that what the
// machine does beside them falls on all; what it prints are ratios.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-measure" {
		measure(os.Args[2:])
		return
	}
	runs := flag.Int("n", 60, "counted runs of each program")
	key := flag.String("key", "ec-p256", "type of the key in the file")
	only := flag.String("only", "", "leave out the rows whose names do not hold this `text`")
	flag.Parse()
	if err := bench(*runs, *key, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A row is one command in the table, with what it is to stay below.
type row struct {
	name             string
	command          []string
	time, memory     string // the aims
	results          []result
	countTPMCommands bool
}

func bench(runs int, algorithm, only string) error {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, program := range []string{"./cmd/holdfast", "./scripts/bench/floor", "./cmd/holdfast-pkcs11"} {
		if out, err := exec.Command("scripts/build.sh", filepath.Join(dir, filepath.Base(program)), program).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %v\n%s", program, err, out)
		}
	}
	l, err := newLab(dir, algorithm)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.addToken(); err != nil {
		return err
	}
	if err := l.addTPM(); err != nil {
		return err
	}
	rows := []*row{
		{name: "floor", command: []string{filepath.Join(dir, "floor"), l.keyFile, l.server.URL + "/floor"}},
		{name: "key file", time: "≤ 1.4", memory: "≤ 1.3", command: l.credentialProcess("--no-cache", "--certificate", l.certFile, "--private-key", l.keyFile)},
		{name: "key file, cached session", time: "≤ 0.8", command: l.credentialProcess("--certificate", l.certFile, "--private-key", l.keyFile, "--cache", "keyring")},
		{name: "SoftHSM token", time: "≤ 3", command: l.credentialProcess("--no-cache", "--certificate", l.tokenURI)},
		{name: "swtpm, TSS2 key file", time: "≤ 1.6", countTPMCommands: true, command: l.credentialProcess("--no-cache", "--certificate", l.tpmCert, "--private-key", l.tpmKeyFile)},
		{name: "swtpm, persistent handle", countTPMCommands: true, command: l.credentialProcess("--no-cache", "--certificate", l.handleCert, "--private-key", l.handle)},
	}
	defer func() { _, _ = output(l.holdfast, "cache", "clear") }() // this run's sessions are in the user's keyring
	kept := rows[:1]
	for _, r := range rows[1:] {
		if strings.Contains(r.name, only) {
			kept = append(kept, r)
		}
	}
	rows = kept
	for i := range runs + 1 { // the first run of each warms the page cache
		for n := range rows {
			r := rows[(n+1)%len(rows)] // the floor comes last: it replays what holdfast sent
			took, err := spawn(r.command)
			if err != nil {
				return err
			}
			if i > 0 {
				r.results = append(r.results, took)
			}
		}
	}
	fmt.Printf("cold credential-process, %s, %d runs of each in turn, medians; %s, %d CPUs\n\n", algorithm, runs, runtime.Version(), runtime.NumCPU())
	fmt.Printf("%-30s %12s %8s %6s %14s %8s %6s\n", "whole process", "time", "ratio", "aim", "peak memory", "ratio", "aim")
	for _, r := range rows {
		report(r, rows[0])
	}
	if err := l.reportTPMCommands(rows); err != nil {
		return err
	}
	info, err := os.Stat(l.holdfast)
	if err != nil {
		return err
	}
	fmt.Printf("\nholdfast, stripped: %.2f MB (aim ≤ 9)\n", float64(info.Size())/1e6)
	return nil
}
