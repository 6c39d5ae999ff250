package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// TestTPMProcesses has four programs at once use one TPM that has no resource
// manager. One is killed at a random moment; the others, and whoever comes next,
// do not notice.
func TestTPMProcesses(t *testing.T) {
	const rounds = 50
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // not a secret
	w := newTPMSite(t, tpmtest.Start(t), 0)
	w.createKey(tpm.CreateOptions{}, "open.pem")
	w.createKey(tpm.CreateOptions{Auth: secretOf(keySecret)}, "locked.pem")
	w.createKey(tpm.CreateOptions{Persistent: 0x81000030}, "handle.pem")
	uses := [][]string{
		append([]string{"--private-key", w.path("locked.pem")}, w.keyAuth()...),
		{"--private-key", w.path("open.pem")},
		{"--private-key", "handle:0x81000030"},
		append([]string{"--private-key", w.path("locked.pem")}, w.keyAuth()...),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	left, span := 0, time.Duration(0)
	for round := range rounds + 1 {
		type running struct {
			*exec.Cmd
			stderr *strings.Builder
		}
		var all []running
		began := time.Now()
		for i := range uses {
			r := running{w.program(ctx, append([]string{"sign-string"}, uses[(round+i)%len(uses)]...)...), &strings.Builder{}}
			r.Stderr = r.stderr
			must(t, r.Start())
			all = append(all, r)
		}
		if round > 0 {
			// At some time while they take their turns.
			time.Sleep(time.Duration(random.Int64N(int64(span))))
			_ = all[0].Process.Kill()
			if all[0].Wait() != nil {
				left++
			}
			all = all[1:]
		}
		for i, r := range all {
			if err := r.Wait(); err != nil {
				t.Fatalf("round %d, program %d: %v\n%s", round, i+1, err, r.stderr)
			}
		}
		if round == 0 {
			span = time.Since(began)
		}
	}
	t.Logf("%d of %d were killed before their end", left, rounds)
	if left == 0 {
		t.Error("none was killed half-way, which proves nothing")
	}
	// The last one killed may have left something for whoever comes next.
	d := w.open()
	must(t, d.Do(ctx, func(transport.TPM) error { return nil }))
	must(t, d.Close())
	w.tpm.CheckEmpty()
	if n := failedTries(w.tpm); n != 0 {
		t.Errorf("%d lock-out tries were burnt", n)
	}
	files, err := os.ReadDir(lookupEnv(w.env, tpmLockDirEnv))
	must(t, err)
	for _, f := range files {
		if name := f.Name(); strings.HasPrefix(name, "holdfast-tpm") && filepath.Ext(name) != ".lock" && filepath.Ext(name) != ".wait" {
			t.Errorf("%s is left", name)
		}
	}
}
