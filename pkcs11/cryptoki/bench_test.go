//go:build cgo

package cryptoki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
)

// BenchmarkSign measures Key.Sign beside a bare loop of C_SignInit and C_Sign
// on the same key, with one session and with eight.
func BenchmarkSign(b *testing.B) {
	newHSM(b, "bench")
	m := load(b)
	for _, algorithm := range []string{"ec-p256", "rsa-2048"} {
		k := generate(b, m, "pkcs11:token=bench;object="+algorithm, algorithm, options(nil))
		digest := sha256.Sum256([]byte("x"))
		bare := newBareLoop(b, m, k, algorithm)
		for _, sessions := range []int{1, 8} {
			name := algorithm + map[int]string{1: "/1", 8: "/8"}[sessions]
			b.Run(name+"/bare", func(b *testing.B) {
				spread(b, sessions, bare.worker)
			})
			b.Run(name+"/key", func(b *testing.B) {
				spread(b, sessions, func(b *testing.B) func() {
					return func() {
						if _, err := k.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkRatio alternates between the two in short rounds, so that what else
// the machine does falls on both, and reports Key.Sign's rate as a part of the
// bare loop's.
func BenchmarkRatio(b *testing.B) {
	newHSM(b, "ratio")
	m := load(b)
	for _, algorithm := range []string{"ec-p256", "rsa-2048"} {
		k := generate(b, m, "pkcs11:token=ratio;object="+algorithm, algorithm, options(nil))
		digest := sha256.Sum256([]byte("x"))
		bare := newBareLoop(b, m, k, algorithm)
		for _, sessions := range []int{1, 8} {
			b.Run(algorithm+map[int]string{1: "/1", 8: "/8"}[sessions], func(b *testing.B) {
				var plain []func()
				for range sessions {
					plain = append(plain, bare.worker(b))
				}
				sign := func() {
					if _, err := k.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
						b.Error(err)
					}
				}
				var bareRate, keyRate float64
				for range b.N {
					bareRate += rate(plain)
					keyRate += rate(slices.Repeat([]func(){sign}, sessions))
				}
				b.ReportMetric(keyRate/bareRate, "ratio")
				b.ReportMetric(keyRate/float64(b.N), "sig/s")
			})
		}
	}
}

// rate runs each f over and over for a moment and returns calls per second.
func rate(work []func()) float64 {
	const moment = 40 * time.Millisecond
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for _, f := range work {
		wg.Go(func() {
			for time.Since(start) < moment {
				f()
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds()
}

// spread runs b.N operations on n goroutines.
func spread(b *testing.B, n int, worker func(b *testing.B) func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	work := make([]func(), n)
	for i := range work {
		work[i] = worker(b)
	}
	b.ResetTimer()
	for _, f := range work {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sig/s")
}

type bareLoop struct {
	ctx  *p11.Ctx
	slot uint
	key  p11.ObjectHandle
	mech []*p11.Mechanism
	data []byte
}

func newBareLoop(b *testing.B, m *cryptoki.Module, k *cryptoki.Key, algorithm string) bareLoop {
	l := bareLoop{ctx: p11.New(modulePath(b)), slot: uint(k.Token().SlotID)}
	s, err := l.ctx.OpenSession(l.slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		b.Fatal(err)
	}
	defer l.ctx.CloseSession(s)
	label := k.URI().Value(pkcs11.AttrObject)
	if err := l.ctx.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), p11.NewAttribute(p11.CKA_LABEL, label)}); err != nil {
		b.Fatal(err)
	}
	found, _, err := l.ctx.FindObjects(s, 2)
	if err != nil || len(found) != 1 {
		b.Fatal(found, err)
	}
	l.key = found[0]
	digest := sha256.Sum256([]byte("x"))
	l.data, l.mech = digest[:], []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}
	if algorithm == "rsa-2048" {
		l.mech = []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}
		l.data = append([]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, digest[:]...)
	}
	return l
}

func (l bareLoop) worker(b *testing.B) func() {
	s, err := l.ctx.OpenSession(l.slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.ctx.CloseSession(s) })
	return func() {
		if err := l.ctx.SignInit(s, l.mech, l.key); err != nil {
			b.Error(err)
		}
		if _, err := l.ctx.Sign(s, l.data); err != nil {
			b.Error(err)
		}
	}
}
