package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// A job is a signature to make.
type job struct {
	scheme scheme
	digest []byte          // as the TPM takes it
	hash   crypto.Hash     // of the digest, as the caller said
	pss    *rsa.PSSOptions // nil for anything but PSS
	padded []byte          // an RSA block made here, for TPM2_RSA_Decrypt
}

// plan decides how the TPM is to make a signature, or says why it cannot.
func (k *Key) plan(digest []byte, opts crypto.SignerOpts) (job, error) {
	j := job{digest: digest}
	j.pss, _ = opts.(*rsa.PSSOptions)
	if opts != nil {
		j.hash = opts.HashFunc()
	}
	if j.hash > crypto.BLAKE2b_512 { // Size would panic
		return j, fmt.Errorf("%v: %w", j.hash, errors.ErrUnsupported)
	}
	if j.hash != 0 && len(digest) != j.hash.Size() {
		return j, fmt.Errorf("a digest of %d bytes, and %v makes %d", len(digest), j.hash, j.hash.Size())
	}
	switch pub := k.pub.(type) {
	case *ecdsa.PublicKey:
		if j.pss != nil {
			return j, errors.New("PSS is RSA's, and this is an EC key")
		}
		return k.planECDSA(j, pub)
	case *rsa.PublicKey:
		if j.pss != nil {
			return k.planPSS(j, pub)
		}
		return k.planPKCS1(j, pub)
	}
	return j, unsupported("%T", k.pub)
}

// planECDSA cuts or pads the digest to what the curve uses of it (FIPS 186-5,
// clause 6.4.1), and names any hash of that size: ECDSA does not depend on
// which. So the TPM need not have the hash that was used.
func (k *Key) planECDSA(j job, pub *ecdsa.PublicKey) (job, error) {
	if len(j.digest) == 0 {
		return j, errors.New("an empty digest")
	}
	n := (pub.Curve.Params().BitSize + 7) / 8
	if len(j.digest) > n {
		j.digest = j.digest[:n]
	}
	j.scheme = scheme{tpm2.TPMAlgECDSA, k.fixed.hash}
	if j.scheme.hash == 0 {
		for _, h := range []tpm2.TPMIAlgHash{tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512} {
			if j.scheme.hash = h; hashSize(h) >= len(j.digest) {
				break
			}
		}
	}
	size := hashSize(j.scheme.hash)
	if size < len(j.digest) {
		return j, unsupported("a key for %s alone cannot sign a digest of %d bytes", hashName(j.scheme.hash), len(j.digest))
	}
	padded := make([]byte, size)
	copy(padded[min(size, n)-len(j.digest):], j.digest) // the TPM takes the first n, too
	j.digest = padded
	return j, nil
}

func hashSize(alg tpm2.TPMIAlgHash) int {
	h, err := alg.Hash()
	if err != nil {
		return 0
	}
	return h.Size()
}

// tpmHash names a hash as TPMs do.
func tpmHash(h crypto.Hash) (tpm2.TPMIAlgHash, bool) {
	switch h {
	case crypto.SHA1:
		return tpm2.TPMAlgSHA1, true
	case crypto.SHA256:
		return tpm2.TPMAlgSHA256, true
	case crypto.SHA384:
		return tpm2.TPMAlgSHA384, true
	case crypto.SHA512:
		return tpm2.TPMAlgSHA512, true
	case crypto.SHA3_256:
		return tpm2.TPMAlgSHA3256, true
	case crypto.SHA3_384:
		return tpm2.TPMAlgSHA3384, true
	case crypto.SHA3_512:
		return tpm2.TPMAlgSHA3512, true
	}
	return 0, false
}

func (k *Key) planPKCS1(j job, pub *rsa.PublicKey) (job, error) {
	if err := k.allows(tpm2.TPMAlgRSASSA, j.hash); err != nil {
		return j, err
	}
	alg, ok := tpmHash(j.hash)
	j.scheme = scheme{tpm2.TPMAlgRSASSA, alg}
	if !ok || k.lacks(alg) {
		return k.planRaw(j, func() ([]byte, error) { return padPKCS1(pub, j.hash, j.digest) })
	}
	return j, nil
}

func (k *Key) planPSS(j job, pub *rsa.PublicKey) (job, error) {
	if j.hash == 0 {
		return j, errors.New("PSS without a hash")
	}
	if err := k.allows(tpm2.TPMAlgRSAPSS, j.hash); err != nil {
		return j, err
	}
	salt, err := saltLength(pub, j)
	if err != nil {
		return j, err
	}
	alg, ok := tpmHash(j.hash)
	j.scheme = scheme{tpm2.TPMAlgRSAPSS, alg}
	// TPMs salt with as many bytes as the hash has, the first ones with as
	// many as fit. Which of them this is its first signature tells.
	fits := j.pss.SaltLength == rsa.PSSSaltLengthAuto || salt == j.hash.Size()
	if !ok || !fits || k.lacks(alg) || (k.largeSalt.Load() && j.pss.SaltLength != rsa.PSSSaltLengthAuto) {
		return k.planRaw(j, func() ([]byte, error) { return padPSS(pub, j.hash, j.digest, salt) })
	}
	return j, nil
}

// saltLength returns the number of bytes that crypto/rsa would salt with.
func saltLength(pub *rsa.PublicKey, j job) (int, error) {
	most := (pub.N.BitLen()-1+7)/8 - 2 - j.hash.Size()
	switch n := j.pss.SaltLength; {
	case n == rsa.PSSSaltLengthAuto:
		return most, nil
	case n == rsa.PSSSaltLengthEqualsHash:
		return j.hash.Size(), nil
	case n > 0 && n <= most:
		return n, nil
	}
	return 0, fmt.Errorf("a PSS salt of %d bytes", j.pss.SaltLength)
}

// allows says whether a key that is bound to a scheme takes this one.
func (k *Key) allows(alg tpm2.TPMAlgID, hash crypto.Hash) error {
	if k.fixed.alg == 0 {
		return nil
	}
	h, _ := tpmHash(hash)
	if k.fixed.alg != alg || k.fixed.hash != h {
		return unsupported("the key signs with %s and %s alone, and %s with %v was asked for",
			schemeName(k.fixed.alg), hashName(k.fixed.hash), schemeName(alg), hash)
	}
	return nil
}

// planRaw has the padding made here and the TPM do RSA alone, which it does for
// keys that may decrypt.
func (k *Key) planRaw(j job, pad func() ([]byte, error)) (job, error) {
	a := k.public.ObjectAttributes
	if !a.Decrypt || k.fixed.alg != 0 {
		return j, signer.WithHint(unsupported("this TPM does not make such a signature itself (%s, %v), and the key may not decrypt, which would do instead",
			schemeName(j.scheme.alg), j.hash), "sign with SHA-256")
	}
	var err error
	j.padded, err = pad()
	return j, err
}

// run makes the signature.
func (k *Key) run(o *op, j job) (sig []byte, err error) {
	err = k.retry(o, func() error {
		auth, err := k.ready(o)
		if err != nil {
			return err
		}
		handle := tpm2.AuthHandle{Handle: k.current(), Name: k.place.name, Auth: auth}
		if j.padded != nil {
			sig, err = k.decrypt(o, handle, j.padded)
		} else {
			sig, err = k.sign(o, handle, j)
		}
		return k.judge(o, err)
	})
	return sig, err
}

func (k *Key) sign(o *op, key tpm2.AuthHandle, j job) ([]byte, error) {
	rsp, err := tpm2.Sign{
		KeyHandle:  key,
		Digest:     tpm2.TPM2BDigest{Buffer: j.digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: j.scheme.alg, Details: tpm2.NewTPMUSigScheme(j.scheme.alg, &tpm2.TPMSSchemeHash{HashAlg: j.scheme.hash})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(o)
	if err != nil {
		return nil, err
	}
	switch j.scheme.alg {
	case tpm2.TPMAlgECDSA:
		s, err := rsp.Signature.Signature.ECDSA()
		if err != nil {
			return nil, fmt.Errorf("the TPM's answer: %w", err)
		}
		return marshalECDSA(s.SignatureR.Buffer, s.SignatureS.Buffer)
	case tpm2.TPMAlgRSASSA:
		s, err := rsp.Signature.Signature.RSASSA()
		if err != nil {
			return nil, fmt.Errorf("the TPM's answer: %w", err)
		}
		return s.Sig.Buffer, nil
	default:
		s, err := rsp.Signature.Signature.RSAPSS()
		if err != nil {
			return nil, fmt.Errorf("the TPM's answer: %w", err)
		}
		return s.Sig.Buffer, nil
	}
}

func marshalECDSA(r, s []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(r))
		b.AddASN1BigInt(new(big.Int).SetBytes(s))
	})
	return b.Bytes()
}

func (k *Key) decrypt(o *op, key tpm2.AuthHandle, block []byte) ([]byte, error) {
	rsp, err := tpm2.RSADecrypt{
		KeyHandle:  key,
		CipherText: tpm2.TPM2BPublicKeyRSA{Buffer: block},
		InScheme:   tpm2.TPMTRSADecrypt{Scheme: tpm2.TPMAlgNull},
	}.Execute(o)
	if err != nil {
		return nil, err
	}
	sig := rsp.Message.Buffer
	if len(sig) > len(block) {
		return nil, fmt.Errorf("the TPM's answer: a signature of %d bytes", len(sig))
	}
	return append(make([]byte, len(block)-len(sig)), sig...), nil
}
