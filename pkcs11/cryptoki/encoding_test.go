//go:build cgo

package cryptoki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"testing"
)

func newECKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Signatures of every form that tokens have been seen to return, r and s with
// leading zeros among them.
func TestEncodeECDSA(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		t.Run(curve.Params().Name, func(t *testing.T) {
			key := newECKey(t, curve)
			size := (curve.Params().BitSize + 7) / 8
			shortR, shortS := false, false
			for i := 0; i < 3000 && !(shortR && shortS && i > 20); i++ {
				digest := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
				der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
				if err != nil {
					t.Fatal(err)
				}
				r, s, ok := parseSignature(der)
				if !ok {
					t.Fatal("not parsed")
				}
				pad := func(b []byte, n int) []byte { return append(make([]byte, max(n-len(b), 0)), b...) }
				shortR, shortS = shortR || len(r) < size, shortS || len(s) < size
				for name, raw := range map[string][]byte{
					"fixed":  append(pad(r, size), pad(s, size)...),
					"DER":    der,
					"bare":   append(bytes.Clone(r), s...),
					"short":  append(pad(r, max(len(r), len(s))), pad(s, max(len(r), len(s)))...),
					"longer": append(pad(r, size+1), pad(s, size+1)...),
					"mixed":  append(pad(r, size), s...),
				} {
					got, err := encodeECDSA(&key.PublicKey, digest[:], raw)
					if err != nil || !bytes.Equal(got, der) {
						t.Fatalf("%s: %x from %x: %v", name, got, raw, err)
					}
				}
			}
			if !shortR || !shortS {
				t.Error("no signature had leading zeros")
			}
			digest := sha256.Sum256(nil)
			for _, raw := range [][]byte{nil, {1}, {0x30, 0}, make([]byte, size), bytes.Repeat([]byte{1}, 2*size+2), bytes.Repeat([]byte{0xff}, 500)} {
				if sig, err := encodeECDSA(&key.PublicKey, digest[:], raw); err == nil {
					t.Errorf("%x from %x", sig, raw)
				}
			}
		})
	}
}

func FuzzEncodeECDSA(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(make([]byte, 64))
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		sig, err := encodeECDSA(&key.PublicKey, make([]byte, 32), raw)
		if _, _, ok := parseSignature(sig); err == nil && !ok {
			t.Fatalf("%x from %x", sig, raw)
		}
	})
}

func TestParsePoint(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key := newECKey(t, curve)
		raw, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := (curve.Params().BitSize + 7) / 8
		compressed := append([]byte{2 + raw[len(raw)-1]&1}, raw[1:1+size]...)
		octets := func(b []byte) []byte {
			der, err := asn1.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			return der
		}
		bits, err := asn1.Marshal(asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)})
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{
			"standard": octets(raw), "raw": raw, "compressed": compressed, "wrapped compressed": octets(compressed), "bit string": bits, "x and y": raw[1:],
		} {
			if got := parsePoint(curve, b); got == nil || !got.Equal(&key.PublicKey) {
				t.Errorf("%s %s: %v", curve.Params().Name, name, got)
			}
		}
		for _, b := range [][]byte{nil, {4}, raw[:len(raw)-2], make([]byte, len(raw)), octets(nil), {4, 0x82}} {
			if got := parsePoint(curve, b); got != nil {
				t.Errorf("%s: a key from %x", curve.Params().Name, b)
			}
		}
	}
}

func FuzzParsePoint(f *testing.F) {
	f.Add(make([]byte, 65))
	f.Add([]byte{4, 65, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range curves {
			parsePoint(c.curve, b)
		}
	})
}

func TestCurveOf(t *testing.T) {
	for _, c := range curves {
		oid, err := asn1.Marshal(c.oid)
		if err != nil {
			t.Fatal(err)
		}
		name, err := asn1.MarshalWithParams(c.names[0], "printable")
		if err != nil {
			t.Fatal(err)
		}
		for _, params := range [][]byte{oid, name} {
			if got, text := curveOf(params); got != c.curve {
				t.Errorf("%x is %s", params, text)
			}
		}
	}
	if got, _ := curveOf([]byte{0x30, 0}); got != nil {
		t.Error("explicit parameters have a name")
	}
}

func TestTold(t *testing.T) {
	for _, c := range []struct {
		n    uint
		want uint64
	}{{0, 0}, {1, 1}, {255, 255}, {^uint(0), 0}, {1<<32 - 1, 0}} {
		if got := told(c.n); got != c.want {
			t.Errorf("%d: %d", c.n, got)
		}
	}
}
