package software

import (
	"crypto/sha3"

	"github.com/cloudflare/circl/sign"
)

// The ring of ML-DSA (FIPS 204, section 4).
const (
	mldsaQ       = 8380417
	mldsaDropped = 13 // bits of t that are in t0
)

type mldsaPoly [256]int64

// checkExpanded compares an expanded ML-DSA key with the public key made of its
// ρ, s1 and s2. It reports whether the secret vectors are in range, and whether
// t0 is the rest of t = A·s1 + s2 that the public key leaves out. circl checks
// neither. The comparison is of number-theoretic transforms, which spares the
// inverse one.
func checkExpanded(scheme sign.Scheme, expanded, public []byte) (inRange, fits bool) {
	eta, bits := int64(2), 3
	if scheme.Name() == "ML-DSA-65" {
		eta, bits = 4, 4
	}
	rho, vectors := expanded[:32], expanded[128:]
	k := (scheme.PublicKeySize() - 32) / (256 / 8 * 10)
	take := func(bits int) mldsaPoly {
		var p mldsaPoly
		p, vectors = unpackPoly(vectors, bits)
		return p
	}
	l := (len(vectors)-k*(256/8*mldsaDropped))/(256/8*bits) - k

	secrets := make([]mldsaPoly, l+k) // s1, then s2
	for i := range secrets {
		secrets[i] = take(bits)
		for j, c := range secrets[i] {
			if c > 2*eta {
				return false, false
			}
			secrets[i][j] = eta - c
		}
		secrets[i].transform()
	}
	t1 := public[32:]
	for row := range k {
		var t mldsaPoly
		t, t1 = unpackPoly(t1, 10)
		for j, c := range take(mldsaDropped) {
			t[j] = t[j]<<mldsaDropped + 1<<(mldsaDropped-1) - c
		}
		t.transform()
		sum := secrets[l+row]
		for column := range l {
			a := expandA(rho, row, column)
			for j := range sum {
				sum[j] = (sum[j] + a[j]*secrets[column][j]) % mldsaQ
			}
		}
		for j := range sum {
			if (sum[j]-t[j])%mldsaQ != 0 {
				return true, false
			}
		}
	}
	return true, true
}

// unpackPoly reads 256 coefficients of so many bits, and returns what follows.
func unpackPoly(packed []byte, bits int) (p mldsaPoly, rest []byte) {
	var have, at int
	var word int64
	for _, b := range packed[:256/8*bits] {
		word |= int64(b) << have
		for have += 8; have >= bits; have -= bits {
			p[at] = word & (1<<bits - 1)
			word >>= bits
			at++
		}
	}
	return p, packed[256/8*bits:]
}

// transform is NTT (FIPS 204, algorithm 41). Its coefficients may be negative.
func (p *mldsaPoly) transform() {
	m := 0
	for size := 128; size >= 1; size /= 2 {
		for start := 0; start < 256; start += 2 * size {
			m++
			zeta := zetaPower(m)
			for j := start; j < start+size; j++ {
				t := zeta * p[j+size] % mldsaQ
				p[j], p[j+size] = (p[j]+t)%mldsaQ, (p[j]-t)%mldsaQ
			}
		}
	}
}

// zetaPower is 1753 to the power of m with its eight bits reversed.
func zetaPower(m int) int64 {
	power, base := int64(1), int64(1753)
	for bit := 7; bit >= 0; bit-- {
		if m>>bit&1 == 1 {
			power = power * base % mldsaQ
		}
		base = base * base % mldsaQ
	}
	return power
}

// expandA is one polynomial of ExpandA (FIPS 204, algorithms 30 and 32).
func expandA(rho []byte, row, column int) (p mldsaPoly) {
	h := sha3.NewSHAKE128()
	_, _ = h.Write(rho)
	_, _ = h.Write([]byte{byte(column), byte(row)})
	var b [3]byte
	for at := 0; at < len(p); {
		_, _ = h.Read(b[:])
		if c := int64(b[0]) | int64(b[1])<<8 | int64(b[2]&0x7f)<<16; c < mldsaQ {
			p[at] = c
			at++
		}
	}
	return p
}
