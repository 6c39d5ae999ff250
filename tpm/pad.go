package tpm

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// RSA padding, for signatures that the TPM cannot make whole: its hash, salt
// length or scheme is not one of the TPM's.

// errPlanAnew: the TPM cannot do what was planned, which is now known.
var errPlanAnew = errors.New("the TPM does not make such a signature")

// learn takes from the TPM's answer what it can do. PSS signatures are looked
// at, for TPMs differ in the length of their salt.
func (k *Key) learn(j job, sig []byte, err error) error {
	pub, ok := k.pub.(*rsa.PublicKey)
	if !ok || j.padded != nil {
		return err
	}
	if codeOf(err) == tpm2.TPMRCHash && !k.lacks(j.scheme.hash) {
		list := []tpm2.TPMIAlgHash{j.scheme.hash}
		if old := k.missing.Load(); old != nil {
			list = append(list, *old...)
		}
		k.missing.Store(&list)
		return errPlanAnew
	}
	if err != nil || j.pss == nil || j.pss.SaltLength == rsa.PSSSaltLengthAuto {
		return err
	}
	if rsa.VerifyPSS(pub, j.hash, j.digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil {
		return nil
	}
	if err := rsa.VerifyPSS(pub, j.hash, j.digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}); err != nil {
		return fmt.Errorf("the TPM's signature is wrong: %w", err)
	}
	k.largeSalt.Store(true)
	return errPlanAnew
}

// lacks reports whether the TPM is known to lack a hash.
func (k *Key) lacks(alg tpm2.TPMIAlgHash) bool {
	list := k.missing.Load()
	return list != nil && slices.Contains(*list, alg)
}

// digestInfo holds the DER that precedes a digest (RFC 8017, 9.2, note 1).
func digestInfo(h crypto.Hash) ([]byte, bool) {
	oid, ok := map[crypto.Hash]byte{crypto.SHA256: 1, crypto.SHA384: 2, crypto.SHA512: 3, crypto.SHA224: 4,
		crypto.SHA512_224: 5, crypto.SHA512_256: 6, crypto.SHA3_224: 7, crypto.SHA3_256: 8, crypto.SHA3_384: 9, crypto.SHA3_512: 10}[h]
	switch {
	case ok:
		n := byte(h.Size()) //nolint:gosec // at most 64
		return []byte{0x30, 17 + n, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, oid, 5, 0, 4, n}, true
	case h == crypto.SHA1:
		return []byte{0x30, 33, 0x30, 9, 6, 5, 0x2b, 14, 3, 2, 26, 5, 0, 4, 20}, true
	case h == 0, h == crypto.MD5SHA1:
		return nil, true // the caller's own, as in TLS 1.1
	}
	return nil, false
}

// padPKCS1 is EMSA-PKCS1-v1_5 (RFC 8017, 9.2).
func padPKCS1(pub *rsa.PublicKey, h crypto.Hash, digest []byte) ([]byte, error) {
	info, ok := digestInfo(h)
	if !ok {
		return nil, fmt.Errorf("PKCS#1 v1.5 with %v: %w", h, errors.ErrUnsupported)
	}
	block := make([]byte, pub.Size())
	t := len(block) - len(info) - len(digest)
	if t < 11 {
		return nil, fmt.Errorf("%d bytes are too many for RSA-%d: %w", len(digest), pub.N.BitLen(), errors.ErrUnsupported)
	}
	block[1] = 1
	for i := 2; i < t-1; i++ {
		block[i] = 0xff
	}
	copy(block[t:], info)
	copy(block[t+len(info):], digest)
	return block, nil
}

// padPSS is EMSA-PSS (RFC 8017, 9.1.1) with MGF1 and one hash for all.
func padPSS(pub *rsa.PublicKey, h crypto.Hash, digest []byte, saltLen int) ([]byte, error) {
	if !h.Available() {
		return nil, fmt.Errorf("PSS with %v: %w", h, errors.ErrUnsupported)
	}
	bits := pub.N.BitLen() - 1
	block := make([]byte, pub.Size())
	em := block[len(block)-(bits+7)/8:]
	if len(em) < h.Size()+saltLen+2 {
		return nil, fmt.Errorf("a salt of %d bytes is too long for RSA-%d", saltLen, pub.N.BitLen())
	}
	salt := make([]byte, saltLen)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	sum := h.New()
	sum.Write(make([]byte, 8))
	sum.Write(digest)
	sum.Write(salt)
	hashed := sum.Sum(nil)

	db := em[:len(em)-h.Size()-1]
	db[len(db)-saltLen-1] = 1
	copy(db[len(db)-saltLen:], salt)
	subtle.XORBytes(db, db, mgf1(h, hashed, len(db)))
	db[0] &= 0xff >> (8*len(em) - bits)
	copy(em[len(db):], hashed)
	em[len(em)-1] = 0xbc
	return block, nil
}

func mgf1(h crypto.Hash, seed []byte, n int) []byte {
	var out []byte
	for i := uint32(0); len(out) < n; i++ {
		sum := h.New()
		sum.Write(seed)
		sum.Write(binary.BigEndian.AppendUint32(nil, i))
		out = sum.Sum(out)
	}
	return out[:n]
}
