package tpm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

func TestMain(m *testing.M) {
	if os.Getenv("HOLDFAST_TEST_WORKER") != "" {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// work is one of several processes that use a TPM: it loads a key, signs some
// times and lets go, over and over.
func work() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	data, err := os.ReadFile(os.Getenv("HOLDFAST_TEST_KEY"))
	if err != nil {
		return err
	}
	f, err := tpm.ParseKeyFile(data)
	if err != nil {
		return err
	}
	for range 6 {
		d, err := tpm.Config{LockDir: os.Getenv("HOLDFAST_TEST_LOCKS")}.Open(ctx, os.Getenv("HOLDFAST_TEST_WORKER"))
		if err != nil {
			return err
		}
		k, err := tpm.OpenKey(ctx, d, f, tpm.Options{Auth: password(longSecret, nil), CloseDevice: true})
		if err != nil {
			return err
		}
		for range 8 {
			if _, err := k.SignContext(ctx, make([]byte, 32), cryptoSHA256); err != nil {
				return err
			}
		}
		if err := k.Close(); err != nil {
			return err
		}
	}
	return nil
}

func TestProcesses(t *testing.T) {
	for _, secret := range []string{"", longSecret} {
		s := tpmtest.Start(t)
		locks := t.TempDir()
		t.Setenv("HOLDFAST_TEST_LOCKS", locks)
		d := open(t, s.TCTI())
		f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))})
		key := writeKeyFile(t, s.Dir(), f)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for round := range 25 {
			var workers []*exec.Cmd
			var errs []*strings.Builder
			for range 4 {
				c := exec.Command(os.Args[0]) //nolint:gosec // this test
				c.Env = append(os.Environ(), "HOLDFAST_TEST_WORKER="+s.TCTI(), "HOLDFAST_TEST_KEY="+key, "HOLDFAST_TEST_LOCKS="+locks)
				e := &strings.Builder{}
				c.Stderr = e
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				workers, errs = append(workers, c), append(errs, e)
			}
			time.Sleep(rand.N(150 * time.Millisecond)) //nolint:gosec // not a secret
			_ = workers[0].Process.Kill()
			_ = workers[0].Wait()
			for i, c := range workers[1:] {
				if err := c.Wait(); err != nil {
					t.Fatalf("round %d, worker %d: %v: %s", round, i+1, err, errs[i+1])
				}
			}
		}
		// The killed one may have been the last.
		d = open(t, s.TCTI())
		if err := d.Do(testContext(t), func(transport.TPM) error { return nil }); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		s.CheckEmpty()
		if left, _ := filepath.Glob(filepath.Join(locks, "*")); len(left) != 2 {
			t.Errorf("lock files: %v", left)
		}
	}
}
