package tpm_test

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// BenchmarkSign signs in turn with a Key and with a bare TPM2_Sign loop, each
// on a TPM of its own and with the same authorization (none, or a go-tpm HMAC
// session that is reused), and reports the Key's speed as a part of the loop's, and
// the commands that a signature of a Key that was used before takes, counted
// apart. The aims are 0.95 and 1.
func BenchmarkSign(b *testing.B) {
	for _, alg := range []tpm.Algorithm{tpm.P256, tpm.P384, tpm.RSA2048} {
		b.Run(string(alg)+"/empty", func(b *testing.B) { benchmarkSign(b, alg, "") })
		b.Run(string(alg)+"/session", func(b *testing.B) { benchmarkSign(b, alg, "0123456789abcdef-tail") })
	}
}

func benchmarkSign(b *testing.B, alg tpm.Algorithm, secret string) {
	_, d := startB(b)
	f := create(b, d, tpm.CreateOptions{Algorithm: alg, Auth: signer.NewSecret([]byte(secret))})
	k := openKey(b, d, f, tpm.Options{Auth: password(secret, nil)})
	digest := make([]byte, 32)
	ours := func() error {
		_, err := k.Sign(nil, digest, cryptoSHA256)
		return err
	}
	bare := bareSign(b, alg, secret)
	const batch = 20
	var ratios []float64
	var spent time.Duration
	for b.Loop() {
		var took [2]time.Duration
		for i, f := range []func() error{ours, bare} {
			began := time.Now()
			for range batch {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			took[i] = time.Since(began)
		}
		ratios = append(ratios, float64(took[1])/float64(took[0]))
		spent += took[0]
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "of-bare")
	b.ReportMetric(float64(batch*len(ratios))/spent.Seconds(), "signatures/s")
	b.ReportMetric(commandsPerSignature(b, alg, secret), "commands/signature")
}

func commandsPerSignature(b *testing.B, alg tpm.Algorithm, secret string) float64 {
	p := tpmtest.NewProxy(b, tpmtest.Start(b))
	d := open(b, p.Spec())
	k := openKey(b, d, create(b, d, tpm.CreateOptions{Algorithm: alg, Auth: signer.NewSecret([]byte(secret))}), tpm.Options{Auth: password(secret, nil)})
	const n = 20
	for i := range 1 + n {
		if err := sign(b, k); err != nil {
			b.Fatal(err)
		}
		if i == 0 {
			p.Commands()
		}
	}
	return float64(len(p.Commands())) / n
}

func startB(b *testing.B) (*tpmtest.TPM, *tpm.Device) {
	s := tpmtest.Start(b)
	return s, open(b, s.TCTI())
}

// A bare transport: one connection, a write and a read.
type bare struct {
	net.Conn
	buf [4096]byte
}

func (c *bare) Send(command []byte) ([]byte, error) {
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	n, err := c.Read(c.buf[:])
	return c.buf[:n], err
}

// bareSign returns what makes one signature and does nothing else.
func bareSign(b *testing.B, alg tpm.Algorithm, secret string) func() error {
	s, d := startB(b)
	create(b, d, tpm.CreateOptions{Algorithm: alg, Auth: signer.NewSecret([]byte(secret)), Persistent: 0x81000001})
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("unix", s.Socket())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	t := &bare{Conn: conn}
	pub, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81000001)}.Execute(t)
	if err != nil {
		b.Fatal(err)
	}
	auth := tpm2.PasswordAuth(nil)
	if secret != "" {
		session, end, err := tpm2.HMACSession(t, tpm2.TPMAlgSHA256, 16, tpm2.Auth([]byte(secret)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = end() })
		auth = session
	}
	scheme := tpm2.TPMAlgECDSA
	if alg == tpm.RSA2048 {
		scheme = tpm2.TPMAlgRSASSA
	}
	cmd := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: 0x81000001, Name: pub.Name, Auth: auth},
		Digest:     tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
		InScheme:   tpm2.TPMTSigScheme{Scheme: scheme, Details: tpm2.NewTPMUSigScheme(scheme, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}
	return func() error {
		_, err := cmd.Execute(t)
		return err
	}
}
