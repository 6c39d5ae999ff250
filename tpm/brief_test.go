package tpm_test

import (
	"context"
	"crypto"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// wait waits until all that was begun in the background has had its turn.
func wait(t *testing.T, p *tpmtest.Proxy, want map[tpm2.TPMCC]int) {
	t.Helper()
	got := map[tpm2.TPMCC]int{}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for cc, n := range count(p.Commands()) {
			got[cc] += n
		}
		short := false
		for cc, n := range want {
			short = short || got[cc] < n
		}
		if !short {
			break
		}
	}
	for cc, n := range got {
		if n != want[cc] {
			t.Errorf("the TPM got %v, want %v", got, want)
			break
		}
	}
}

// A key that is preloaded and brief costs what it costs without either, and
// nothing is left in the TPM though the key is still open.
func TestPreloadBrief(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	f := create(t, d, tpm.CreateOptions{})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	p.Commands()

	d = open(t, p.Spec())
	k := openKey(t, d, f, tpm.Options{Brief: true})
	for range 2 {
		k.Preload(context.Background())
		wait(t, p, map[tpm2.TPMCC]int{tpm2.TPMCCCreatePrimary: 1, tpm2.TPMCCLoad: 1, tpm2.TPMCCFlushContext: 1})
		if err := sign(t, k); err != nil {
			t.Fatal(err)
		}
		wait(t, p, map[tpm2.TPMCC]int{tpm2.TPMCCSign: 1, tpm2.TPMCCFlushContext: 1})
	}
	s.CheckEmpty()
	if err := errors.Join(k.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Commands()); n != 0 {
		t.Errorf("closing took %d commands", n)
	}
}

// A parent that was made before the key was opened is used for it, and flushed
// if it turns out to be another's, or nobody's.
func TestExpect(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	plain := create(t, d, tpm.CreateOptions{})
	other := create(t, d, tpm.CreateOptions{Parent: tpm2.TPMRHEndorsement})
	secret := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	p.Commands()
	for name, c := range map[string]struct {
		expected, used     *tpm.KeyFile
		primaries, flushes int
	}{
		"the key's":       {plain, plain, 1, 2},
		"another's":       {other, plain, 2, 3},
		"nobody's":        {plain, nil, 1, 1},
		"with a password": {secret, nil, 0, 0},
		"not a key":       {nil, plain, 1, 2},
	} {
		text := []byte("-----BEGIN TSS2 PRIVATE KEY-----\nAAAA\n-----END TSS2 PRIVATE KEY-----\n")
		if c.expected != nil {
			var err error
			if text, err = c.expected.PEM(); err != nil {
				t.Fatal(err)
			}
		}
		d := open(t, p.Spec())
		d.Expect(context.Background(), append([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), text...), time.Minute)
		if c.used != nil {
			k := openKey(t, d, c.used, tpm.Options{})
			if err := errors.Join(sign(t, k), k.Close()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := count(p.Commands())
		if got[tpm2.TPMCCCreatePrimary] != c.primaries || got[tpm2.TPMCCFlushContext] != c.flushes {
			t.Errorf("%s: the TPM got %v, want %d CreatePrimary and %d FlushContext", name, got, c.primaries, c.flushes)
		}
	}
	s.CheckEmpty()
}

// A key is opened, used and closed while it is being preloaded.
func TestPreloadMeets(t *testing.T) {
	s := tpmtest.Start(t)
	d := open(t, s.TCTI())
	f := create(t, d, tpm.CreateOptions{})
	for i := range 20 {
		k := openKey(t, d, f, tpm.Options{Brief: i%2 == 0})
		k.Preload(context.Background())
		if i%4 < 2 {
			if err := sign(t, k); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	s.CheckEmpty()
}

// Nothing that takes a password, or may count against the lock-out, is done
// before it is asked for.
func TestPreloadHoldsBack(t *testing.T) {
	s := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, s)
	d := open(t, p.Spec())
	plain := create(t, d, tpm.CreateOptions{})
	secret := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(longSecret))})
	p.Commands()
	nobody := func(context.Context, string) (signer.Secret, error) {
		t.Error("a password was asked for")
		return signer.Secret{}, signer.ErrPINRequired
	}
	for _, c := range []struct {
		f *tpm.KeyFile
		o tpm.Options
	}{{secret, tpm.Options{Auth: nobody}}, {plain, tpm.Options{OwnerAuth: nobody}}} {
		k := openKey(t, d, c.f, c.o)
		k.Preload(context.Background())
		time.Sleep(20 * time.Millisecond) // for what should not be done to be done
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Commands(); len(got) != 0 {
		t.Errorf("the TPM got %v", count(got))
	}
}

// What kept a key from being loaded ahead is told by its first use, once. The
// next one tries again.
func TestPreloadFails(t *testing.T) {
	s, other := tpmtest.Start(t), tpmtest.Start(t)
	d := open(t, other.TCTI())
	f := create(t, d, tpm.CreateOptions{})
	p := tpmtest.NewProxy(t, s)
	d = open(t, p.Spec())
	k := openKey(t, d, f, tpm.Options{})
	k.Preload(context.Background())
	for flushed := 0; flushed < 3; { // the parents it may have; the TPM may have a Load tried again
		flushed += count(p.Commands())[tpm2.TPMCCFlushContext]
		time.Sleep(time.Millisecond)
	}
	for _, again := range []bool{false, true} {
		if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, tpm2.TPMRCIntegrity) {
			t.Errorf("signing: %v", err)
		}
		if n := len(p.Commands()); n > 0 != again {
			t.Errorf("the TPM got %d commands; tried again: %v", n, again)
		}
	}
}
