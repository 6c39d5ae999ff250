package tpm

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	_ "crypto/sha256" // sessions hash with it
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Sessions hash with SHA-256, which every TPM 2.0 has, and encrypt with
// AES-128 in CFB mode, as TPM 2.0 Library part 1, clause 19 and 21, have it.
const (
	sessionHash  = tpm2.TPMAlgSHA256
	sessionNonce = 16
	sessionKey   = 128 // bits
)

// A session is an HMAC or policy session in the TPM. It stands in for go-tpm's
// own, which cut an authorization value at its first zero byte and leave a
// policy session behind when a policy fails.
//
// It is used through views, one for each command, that say whose authorization
// value it proves.
type session struct {
	handle   tpm2.TPMHandle
	hash     crypto.Hash
	key      []byte // from the salt; nil for a session that is not salted
	nonceTPM []byte
	bad      bool // in use, or out of step with the TPM: not to be used again
}

// startSession starts a session, salted to salt unless that is nil.
func (o *op) startSession(kind tpm2.TPMSE, hash tpm2.TPMIAlgHash, salt *saltKey) (*session, error) {
	h, err := hash.Hash()
	if err != nil || !h.Available() {
		return nil, fmt.Errorf("a session with hash algorithm %#x: %w", uint16(hash), errors.ErrUnsupported)
	}
	nonce := make([]byte, sessionNonce)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	cmd := tpm2.StartAuthSession{
		TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull, SessionType: kind, AuthHash: hash,
		NonceCaller: tpm2.TPM2BNonce{Buffer: nonce},
		Symmetric:   tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}
	var secret []byte
	if salt != nil {
		key, err := tpm2.ImportEncapsulationKey(salt.public)
		if err != nil {
			return nil, fmt.Errorf("salt key: %w", err)
		}
		var encrypted []byte
		if secret, encrypted, err = tpm2.CreateEncryptedSalt(rand.Reader, key); err != nil {
			return nil, fmt.Errorf("salt key: %w", err)
		}
		defer clear(secret)
		cmd.TPMKey, cmd.EncryptedSalt.Buffer = salt.handle, encrypted
		cmd.Symmetric = tpm2.TPMTSymDef{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(sessionKey)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		}
	}
	rsp, err := cmd.Execute(o)
	if err != nil {
		return nil, o.d.wrapf(err, "starting a session")
	}
	s := &session{
		handle: tpm2.TPMHandle(rsp.SessionHandle.HandleValue()), hash: h,
		nonceTPM: rsp.NonceTPM.Buffer,
	}
	if salt != nil {
		s.key = tpm2.KDFa(h, secret, "ATH", s.nonceTPM, nonce, h.Size()*8)
	}
	return s, nil
}

// A view is a session as one command uses it.
type view struct {
	*session
	auth    []byte // of the object that is authorized, without trailing zeros
	encrypt bool   // the response's first parameter
	decrypt bool   // the command's first parameter
	nonce   []byte
}

// with returns the session for commands on an object whose authorization value
// is auth. in and out say whether the command's and the response's first
// parameter are to be encrypted; both have to be TPM2B.
func (s *session) with(auth []byte, in, out bool) *view {
	salted := s.key != nil
	return &view{session: s, auth: trimAuth(auth), decrypt: in && salted, encrypt: out && salted}
}

// trimAuth drops trailing zeros, as the TPM does: part 1, clause 19.6.5.
func trimAuth(auth []byte) []byte { return bytes.TrimRight(auth, "\x00") }

func (v *view) Init(transport.TPM) error  { return nil }
func (v *view) Handle() tpm2.TPMHandle    { return v.handle }
func (v *view) IsEncryption() bool        { return v.encrypt }
func (v *view) IsDecryption() bool        { return v.decrypt }
func (v *view) NonceTPM() tpm2.TPM2BNonce { return tpm2.TPM2BNonce{Buffer: v.nonceTPM} }

// NewNonceCaller begins a use of the session. Until its end is known, by an
// authentic answer or an error of the TPM's, the TPM's nonce may have moved on
// without us: what the session proved next would count as a wrong password.
func (v *view) NewNonceCaller() error {
	v.bad = true
	v.nonce = make([]byte, sessionNonce)
	_, err := rand.Read(v.nonce)
	return err
}

// CleanupFailure follows an error of the TPM's, which leaves the session as it
// was.
func (v *view) CleanupFailure(transport.TPM) error {
	v.bad = false
	return nil
}

func (v *view) attributes() tpm2.TPMASession {
	return tpm2.TPMASession{ContinueSession: true, Decrypt: v.decrypt, Encrypt: v.encrypt}
}

// mac is the HMAC of part 1, clause 19.6.
func (v *view) mac(hash, newer, older, more []byte, attrs tpm2.TPMASession) []byte {
	m := hmac.New(v.hash.New, append(bytes.Clone(v.key), v.auth...))
	m.Write(hash)
	m.Write(newer)
	m.Write(older)
	m.Write(more)
	m.Write(tpm2.Marshal(attrs))
	return m.Sum(nil)
}

func (v *view) Authorize(cc tpm2.TPMCC, parms, addNonces []byte, names []tpm2.TPM2BName, _ int) (*tpm2.TPMSAuthCommand, error) {
	h := v.hash.New()
	_ = binary.Write(h, binary.BigEndian, uint32(cc))
	for _, n := range names {
		h.Write(n.Buffer)
	}
	h.Write(parms)
	return &tpm2.TPMSAuthCommand{
		Handle:        v.handle,
		Nonce:         tpm2.TPM2BNonce{Buffer: v.nonce},
		Attributes:    v.attributes(),
		Authorization: tpm2.TPM2BData{Buffer: v.mac(h.Sum(nil), v.nonce, v.nonceTPM, addNonces, v.attributes())},
	}, nil
}

func (v *view) Validate(rc tpm2.TPMRC, cc tpm2.TPMCC, parms []byte, _ []tpm2.TPM2BName, _ int, auth *tpm2.TPMSAuthResponse) error {
	h := v.hash.New()
	_ = binary.Write(h, binary.BigEndian, uint32(rc))
	_ = binary.Write(h, binary.BigEndian, uint32(cc))
	h.Write(parms)
	if !hmac.Equal(v.mac(h.Sum(nil), auth.Nonce.Buffer, v.nonce, nil, auth.Attributes), auth.Authorization.Buffer) {
		return errors.New("the TPM's answer is not authentic")
	}
	v.nonceTPM, v.bad = auth.Nonce.Buffer, false
	return nil
}

// Encrypt encrypts a command's parameter in place: for the TPM it decrypts.
func (v *view) Encrypt(parameter []byte) error {
	if !v.decrypt {
		return nil
	}
	return v.cfb(parameter, v.nonce, v.nonceTPM, true)
}

// Decrypt decrypts a response's parameter in place.
func (v *view) Decrypt(parameter []byte) error {
	if !v.encrypt {
		return nil
	}
	return v.cfb(parameter, v.nonceTPM, v.nonce, false)
}

// cfb is part 1, clause 21.3. Go's own CFB is deprecated, for TPMs among few
// still use it.
func (v *view) cfb(data, newer, older []byte, encrypt bool) error {
	k := tpm2.KDFa(v.session.hash, append(bytes.Clone(v.key), v.auth...), "CFB", newer, older, sessionKey+8*aes.BlockSize)
	block, err := aes.NewCipher(k[:sessionKey/8])
	if err != nil {
		return err
	}
	cfb(block, k[sessionKey/8:], data, encrypt)
	return nil
}

func cfb(block cipher.Block, iv, data []byte, encrypt bool) {
	var pad [aes.BlockSize]byte
	last := bytes.Clone(iv)
	for len(data) > 0 {
		block.Encrypt(pad[:], last)
		n := min(len(data), aes.BlockSize)
		for i := range n {
			c := data[i]
			data[i] ^= pad[i]
			if encrypt {
				c = data[i]
			}
			last[i] = c
		}
		data = data[n:]
	}
}
