package tpm_test

import (
	"sync"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// Two users who never pause get their turns, and so does a program that knows
// nothing of the lock.
func TestSharing(t *testing.T) {
	s := tpmtest.Start(t)
	t.Setenv("HOLDFAST_TEST_LOCKS", t.TempDir())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var signed [2]int
	for i := range signed {
		d := open(t, s.TCTI())
		k := openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))}), tpm.Options{Auth: password(longSecret, nil)})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := sign(t, k); err != nil {
					t.Error(err)
					return
				}
				signed[i]++
			}
		})
	}
	for range 3 {
		began := time.Now()
		s.Run("tpm2_getrandom", "8")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("another program waited for %v", took)
		}
	}
	time.Sleep(300 * time.Millisecond)
	close(stop)
	wg.Wait()
	if signed[0] < 20 || signed[1] < 20 {
		t.Errorf("signatures: %d", signed)
	}
	time.Sleep(150 * time.Millisecond)
	s.CheckEmpty() // both are idle: nothing stays in their slots
}
