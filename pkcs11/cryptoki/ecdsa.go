//go:build cgo

package cryptoki

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// encodeECDSA makes an ASN.1 signature of what a token returned for digest: r
// and s side by side, each as long as the curve's order, as the standard has
// it; or shorter or longer by zeros; or ASN.1 already. Only what is not of the
// standard's length is told apart by what verifies.
func encodeECDSA(pub *ecdsa.PublicKey, digest, raw []byte) ([]byte, error) {
	size := (pub.Curve.Params().BitSize + 7) / 8
	if len(raw) == 2*size {
		return derSignature(raw[:size], raw[size:]), nil
	}
	if r, s, ok := parseSignature(raw); ok {
		if sig := derSignature(r, s); ecdsa.VerifyASN1(pub, digest, sig) {
			return sig, nil
		}
	}
	// Halves first, then every other way to cut it.
	half := len(raw) / 2
	for d := 0; d <= half; d++ {
		for _, cut := range []int{half - d, half + d} {
			if cut <= 0 || cut >= len(raw) {
				continue
			}
			r, s := bytes.TrimLeft(raw[:cut], "\x00"), bytes.TrimLeft(raw[cut:], "\x00")
			if len(r) > size || len(s) > size {
				continue
			}
			if sig := derSignature(r, s); ecdsa.VerifyASN1(pub, digest, sig) {
				return sig, nil
			}
		}
		if d > 8 { // so many leading zeros no signature has by chance
			break
		}
	}
	return nil, fmt.Errorf("C_Sign returned %d bytes that are no signature on %s", len(raw), pub.Curve.Params().Name)
}

func parseSignature(sig []byte) (r, s []byte, ok bool) {
	in := cryptobyte.String(sig)
	var seq cryptobyte.String
	ok = in.ReadASN1(&seq, der.SEQUENCE) && in.Empty() &&
		seq.ReadASN1Integer(&r) && seq.ReadASN1Integer(&s) && seq.Empty()
	return r, s, ok
}

// derSignature writes SEQUENCE { INTEGER r, INTEGER s } from unsigned
// big-endian numbers.
func derSignature(r, s []byte) []byte {
	r, s = bytes.TrimLeft(r, "\x00"), bytes.TrimLeft(s, "\x00")
	length := func(n []byte) int {
		if len(n) == 0 || n[0]&0x80 != 0 {
			return len(n) + 1
		}
		return len(n)
	}
	put := func(out, n []byte) []byte {
		l := length(n)
		out = append(out, 0x02, byte(l))
		if l > len(n) {
			out = append(out, 0)
		}
		return append(out, n...)
	}
	n := 4 + length(r) + length(s) // the numbers of P-521 have 66 bytes at most
	out := make([]byte, 0, n+3)
	out = append(out, 0x30)
	if n > 127 {
		out = append(out, 0x81)
	}
	return put(put(append(out, byte(n)), r), s)
}
