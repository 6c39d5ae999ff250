//go:build cgo

package cryptoki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"github.com/holdfast-iam/holdfast/signer"
)

// A request is one signature to be made: what the token does, on what.
type request struct {
	mech   mechanism
	data   []byte // given to C_Sign
	digest []byte // signed in the end
	opts   crypto.SignerOpts
}

// hashes are what PKCS#11 and PKCS#1 call hash functions.
var hashes = map[crypto.Hash]struct {
	mech, mgf          uint   // CKM_ and CKG_, for PSS
	rsa, rsaPSS, ecdsa uint   // CKM_ that hash the message themselves
	prefix             []byte // of the DigestInfo (RFC 8017, section 9.2)
}{
	crypto.MD5SHA1: {},
	crypto.SHA1: {p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, p11.CKM_SHA1_RSA_PKCS, p11.CKM_SHA1_RSA_PKCS_PSS, p11.CKM_ECDSA_SHA1,
		[]byte{0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14}},
	crypto.SHA224: {p11.CKM_SHA224, p11.CKG_MGF1_SHA224, p11.CKM_SHA224_RSA_PKCS, p11.CKM_SHA224_RSA_PKCS_PSS, p11.CKM_ECDSA_SHA224, sha2Prefix(4, 28)},
	crypto.SHA256: {p11.CKM_SHA256, p11.CKG_MGF1_SHA256, p11.CKM_SHA256_RSA_PKCS, p11.CKM_SHA256_RSA_PKCS_PSS, p11.CKM_ECDSA_SHA256, sha2Prefix(1, 32)},
	crypto.SHA384: {p11.CKM_SHA384, p11.CKG_MGF1_SHA384, p11.CKM_SHA384_RSA_PKCS, p11.CKM_SHA384_RSA_PKCS_PSS, p11.CKM_ECDSA_SHA384, sha2Prefix(2, 48)},
	crypto.SHA512: {p11.CKM_SHA512, p11.CKG_MGF1_SHA512, p11.CKM_SHA512_RSA_PKCS, p11.CKM_SHA512_RSA_PKCS_PSS, p11.CKM_ECDSA_SHA512, sha2Prefix(3, 64)},
}

func sha2Prefix(arc, size byte) []byte {
	return []byte{0x30, 0x11 + size, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc, 0x05, 0x00, 0x04, size}
}

// errNeedsMessage: the token hashes itself.
var errNeedsMessage = signer.WithHint(errors.New("the token signs messages, not digests, with this key"), "sign by SignMessage")

// mechanisms chooses among what the token offers; nil means that it does not
// tell.
type mechanisms map[uint]bool

func (m mechanisms) has(id uint) bool { return m == nil || m[id] }

// forDigest plans the signature of a digest.
func (k *Key) forDigest(digest []byte, opts crypto.SignerOpts) (request, error) {
	r := request{digest: digest, opts: opts}
	hash := opts.HashFunc()
	if hash > crypto.BLAKE2b_512 { // Size would panic
		return r, fmt.Errorf("%v: %w", hash, errors.ErrUnsupported)
	}
	if hash != 0 && len(digest) != hash.Size() {
		return r, fmt.Errorf("a digest of %d bytes is not one of %v", len(digest), hash)
	}
	base, err := k.base(opts)
	if err != nil {
		return r, err
	}
	if !k.mechs().has(base) {
		return r, errNeedsMessage
	}
	r.mech.id, r.data = base, digest
	switch pub := k.pub.(type) {
	case *rsa.PublicKey:
		h, known := hashes[hash]
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			if !known || h.mech == 0 {
				return r, fmt.Errorf("%w: RSA-PSS with %v", errors.ErrUnsupported, hash)
			}
			r.mech.param, err = pssParameters(pub, pss, hash)
			return r, err
		}
		if hash != 0 && !known {
			return r, fmt.Errorf("%w: RSA with %v", errors.ErrUnsupported, hash)
		}
		r.data = append(h.prefix[:len(h.prefix):len(h.prefix)], digest...)
		if len(r.data) > pub.Size()-11 {
			return r, rsa.ErrMessageTooLong
		}
	case *ecdsa.PublicKey:
		if n := (pub.Curve.Params().BitSize + 7) / 8; len(digest) > n {
			r.data = digest[:n]
		}
	}
	return r, nil
}

// forMessage plans the signature of a message: hashed here where the token
// takes a digest, by the token else.
func (k *Key) forMessage(message []byte, opts crypto.SignerOpts) (request, error) {
	hash := opts.HashFunc()
	digest := message
	if hash != 0 {
		if !hash.Available() {
			return request{}, fmt.Errorf("%w: %v is not linked into this program", errors.ErrUnsupported, hash)
		}
		h := hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	r, err := k.forDigest(digest, opts)
	if !errors.Is(err, errNeedsMessage) {
		return r, err
	}
	h := hashes[hash]
	r.data, r.digest = message, digest
	switch pub := k.pub.(type) {
	case *rsa.PublicKey:
		r.mech.id = h.rsa
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			r.mech.id = h.rsaPSS
			if r.mech.param, err = pssParameters(pub, pss, hash); err != nil {
				return r, err
			}
		}
	case *ecdsa.PublicKey:
		r.mech.id = h.ecdsa
	}
	if r.mech.id == 0 || !k.mechs().has(r.mech.id) {
		return r, signer.WithHint(fmt.Errorf("%w: the token has no mechanism to sign with %s and %v", errors.ErrUnsupported, signer.DescribeKey(k.pub), hash),
			"`pkcs11-tool --list-mechanisms` shows what the token can do")
	}
	return r, nil
}

// base is the mechanism that signs digests.
func (k *Key) base(opts crypto.SignerOpts) (uint, error) {
	switch k.pub.(type) {
	case *rsa.PublicKey:
		if _, ok := opts.(*rsa.PSSOptions); ok {
			return p11.CKM_RSA_PKCS_PSS, nil
		}
		return p11.CKM_RSA_PKCS, nil
	case *ecdsa.PublicKey:
		return p11.CKM_ECDSA, nil
	}
	return 0, unsupported(k.pub)
}

func unsupported(pub crypto.PublicKey) error {
	if err := signer.CheckSupported(pub); err != nil {
		return err
	}
	return signer.WithHint(fmt.Errorf("%w: %s on a PKCS#11 token", signer.ErrUnsupportedKey, signer.DescribeKey(pub)), "use an EC P-256 or RSA key")
}

func (k *Key) mechs() mechanisms {
	if m := k.t.mechs.Load(); m != nil {
		return *m
	}
	return nil
}

// pssParameters makes a CK_RSA_PKCS_PSS_PARAMS; salt lengths are crypto/rsa's.
func pssParameters(pub *rsa.PublicKey, o *rsa.PSSOptions, hash crypto.Hash) ([]byte, error) {
	most := (pub.N.BitLen()-1+7)/8 - 2 - hash.Size()
	salt := o.SaltLength
	switch salt {
	case rsa.PSSSaltLengthAuto:
		salt = most
	case rsa.PSSSaltLengthEqualsHash:
		salt = hash.Size()
	}
	if salt < 0 || salt > most {
		return nil, fmt.Errorf("a salt of %d bytes does not go with %s and %v", o.SaltLength, signer.DescribeKey(pub), hash)
	}
	return p11.NewPSSParams(hashes[hash].mech, hashes[hash].mgf, uint(salt)), nil
}

// verify checks a finished signature.
func (r request) verify(pub crypto.PublicKey, sig []byte) error {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if pss, ok := r.opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(pub, r.opts.HashFunc(), r.digest, sig, pss)
		}
		return rsa.VerifyPKCS1v15(pub, r.opts.HashFunc(), r.digest, sig)
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(pub, r.digest, sig) {
			return nil
		}
	}
	return errors.New("signature does not verify")
}

// encode copies what the token returned into the form that Go wants.
func (r request) encode(pub crypto.PublicKey, raw []byte) ([]byte, error) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		n := pub.Size()
		if len(raw) > n {
			return nil, fmt.Errorf("C_Sign returned %d bytes that are no signature of %s", len(raw), signer.DescribeKey(pub))
		}
		return append(make([]byte, n-len(raw), n), raw...), nil // some tokens drop leading zeros
	case *ecdsa.PublicKey:
		return encodeECDSA(pub, r.digest, raw)
	}
	return nil, unsupported(pub)
}
