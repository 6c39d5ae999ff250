package tpm_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// The connection breaks while a command runs, at every command in turn. The TPM
// executes it, and nobody hears the answer.
func TestBrokenConnection(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	t.Setenv("HOLDFAST_TEST_LOCKS", t.TempDir())
	d := open(t, p.Spec())
	f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for first := range int32(12) {
		for _, second := range []int32{0, 1, 2, 4} { // after the first, if not 0
			d := open(t, p.Spec())
			k := openKey(t, d, f, tpm.Options{Auth: password(longSecret, nil)})
			var seen atomic.Int32
			p.Fault(func(uint32, []byte) (uint32, bool) {
				if n := seen.Add(1) - 1; n == first || second > 0 && n == first+second {
					p.Break()
				}
				return 0, false
			})
			if err := sign(t, k); err != nil && !errors.Is(err, signer.ErrTokenGone) {
				t.Errorf("broken at command %d+%d: %v", first, second, err)
			}
			if second == 1 {
				if err := k.Close(); err != nil {
					t.Errorf("broken at command %d+%d: %v", first, second, err)
				}
			}
			if err := d.Close(); err != nil {
				t.Errorf("broken at command %d+%d: %v", first, second, err)
			}
			p.Fault(nil)
			// The next user of the TPM clears up what could not be flushed.
			use(t, p)
			if h := s.Handles(); h != "" {
				t.Fatalf("broken at command %d+%d, left in the TPM:\n%s", first, second, h)
			}
		}
	}
}

// use is another process's use of the TPM.
func use(t *testing.T, p *tpmtest.Proxy) {
	t.Helper()
	d := open(t, p.Spec())
	if err := d.Do(testContext(t), func(transport.TPM) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// Another object has taken a key's place in the TPM, which its holder did not
// hear of.
func TestHandleTaken(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	a := openKey(t, d, create(t, d, tpm.CreateOptions{}), tpm.Options{})
	b := openKey(t, d, create(t, d, tpm.CreateOptions{}), tpm.Options{})
	if err := sign(t, a); err != nil {
		t.Fatal(err)
	}
	err := d.Do(testContext(t), func(tp transport.TPM) error {
		for h := tpm2.TPMHandle(0x80000000); h < 0x80000003; h++ {
			_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(tp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []*tpm.Key{b, a, b} {
		if err := sign(t, k); err != nil {
			t.Error(fmt.Errorf("signature %d: %w", i, err))
		}
	}
}

// A key file too large for any TPM is refused before the TPM sees it: what a
// software TPM does not take in it would take for the next command.
func TestHugeKeyFile(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	f := create(t, d, tpm.CreateOptions{})
	good := openKey(t, d, f, tpm.Options{})
	for _, n := range []int{5000, 60000} {
		huge := *f
		huge.Private = bytes.Repeat([]byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0}, n/12)
		k := openKey(t, d, reparse(t, &huge), tpm.Options{})
		p.Forget()
		if err := sign(t, k); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if p.Saw(huge.Private[:100]) {
			t.Errorf("%d bytes were sent", n)
		}
		if err := sign(t, good); err != nil {
			t.Errorf("%d bytes: another key after that: %v", n, err)
		}
	}
}
