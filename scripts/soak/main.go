// Command soak runs "holdfast serve" for a long time under steady load, with
// faults at AWS every few seconds and a new certificate every minute, and
// checks that nothing grows: goroutines, memory, descriptors and TPM handles at
// the end are those of the first minute. No answer may be late in the session's life,
// mixed or refused.
//
//	go run ./scripts/soak -for 20m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func main() {
	length := flag.Duration("for", 20*time.Minute, "how long")
	rate := flag.Int("rate", 200, "requests a second")
	settle := flag.Duration("settle", time.Minute, "when to take the first measure")
	inTPM := flag.Bool("tpm", true, "keys in an swtpm, else in files")
	flag.Parse()
	if err := soak(*length, *settle, *rate, *inTPM); err != nil {
		fmt.Fprintln(os.Stderr, "soak: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("soak: passed")
}

func soak(length, settle time.Duration, rate int, inTPM bool) error {
	if settle >= length {
		return errors.New("-settle must be shorter than -for")
	}
	dir, err := os.MkdirTemp("", "holdfast-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := start(dir, inTPM)
	if err != nil {
		return err
	}
	defer d.stop()

	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, length)
	defer cancel()
	go d.trouble(ctx)
	l := newLoad(d)
	go l.run(ctx, rate)

	begin := time.Now()
	var first, last measure
	ticker := time.NewTicker(settle)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		if last, err = d.measure(); err != nil {
			return err
		}
		if first == (measure{}) {
			first = last
		}
		fmt.Printf("%6s %v, %v\n", time.Since(begin).Round(time.Second), last, l)
	}
	if interrupted.Err() != nil {
		return errors.New("interrupted")
	}
	if err := l.verdict(); err != nil {
		return err
	}
	if d.swaps.Load() == 0 && length > 2*time.Minute {
		return errors.New("no certificate was swapped")
	}
	fmt.Printf("first: %v\nlast:  %v\ncertificates %d, CreateSession %d\n", first, last, d.swaps.Load()+1, d.aws.RequestCount())
	return last.grownBeyond(first)
}

// trouble makes AWS fail for a second every few seconds, and renews the
// certificate every minute.
func (d *daemon) trouble(ctx context.Context) {
	faults := []rolesanywheretest.Fault{
		rolesanywheretest.Status500, rolesanywheretest.Status503, rolesanywheretest.Status429, rolesanywheretest.Drop, rolesanywheretest.Hang,
		rolesanywheretest.HTML, rolesanywheretest.Empty, rolesanywheretest.Truncated, rolesanywheretest.Redirect, rolesanywheretest.Slow(time.Second),
	}
	renew := time.NewTicker(time.Minute)
	defer renew.Stop()
	for {
		wait := time.NewTimer(time.Duration(2+rand.IntN(4)) * time.Second)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-renew.C:
			wait.Stop()
			if err := d.renew(); err != nil {
				fmt.Fprintln(os.Stderr, "soak: renew:", err)
			}
		case <-wait.C:
			d.aws.SetFault(faults[rand.IntN(len(faults))])
			time.Sleep(time.Second)
			d.aws.SetFault("")
		}
	}
}
