package tpmtest

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what a careless program might send
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"unicode/utf16"
)

// Betrays says how the bytes that passed give away a secret, "" if they do not:
// as it is, encoded, cut at its first zero byte, or as a hash of nothing but it.
func (p *Proxy) Betrays(secret string) string {
	captured := p.Captured()
	for how, form := range forms([]byte(secret)) {
		if len(form) > 3 && bytes.Contains(captured, form) {
			return how
		}
	}
	return ""
}

func forms(secret []byte) map[string][]byte {
	first, _, _ := bytes.Cut(secret, []byte{0})
	var wide []byte
	for _, u := range utf16.Encode([]rune(string(secret))) {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	all := map[string][]byte{
		"as it is": secret, "up to its first zero byte": first, "in UTF-16": wide,
		"in hexadecimal": []byte(hex.EncodeToString(secret)), "in base64": []byte(base64.RawStdEncoding.EncodeToString(secret)),
	}
	for _, size := range []int{0, 20, 32, 48, 64} { // padded with zeros, as an HMAC's key is
		padded := append(bytes.Clone(secret), make([]byte, max(0, size-len(secret)))...)
		for _, terminated := range [][]byte{padded, append(bytes.Clone(padded), 0), append(bytes.Clone(padded), '\n')} {
			s1, s256, s384, s512 := sha1.Sum(terminated), sha256.Sum256(terminated), sha512.Sum384(terminated), sha512.Sum512(terminated) //nolint:gosec // see above
			name := fmt.Sprintf("padded to %d bytes, %d in all, and hashed with SHA-", size, len(terminated))
			all[name+"1"], all[name+"256"], all[name+"384"], all[name+"512"] = s1[:], s256[:], s384[:], s512[:]
		}
	}
	return all
}

// Careless lists commands that put an authorization value at risk: one that
// carries a password, and a session that is not salted but proves one, from which
// it can be guessed.
func (p *Proxy) Careless() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	unsalted := map[uint32]bool{}
	for n, e := range p.passed {
		code := binary.BigEndian.Uint32(e.command[6:])
		ok := len(e.response) >= 14 && binary.BigEndian.Uint32(e.response[6:]) == 0
		handles := e.command[10:]
		switch {
		case code == startAuthSession && len(handles) >= 4 && ok:
			unsalted[binary.BigEndian.Uint32(e.response[10:])] = binary.BigEndian.Uint32(handles) == rhNull
		case code == policyAuthValue && len(handles) >= 4 && unsalted[binary.BigEndian.Uint32(handles)]:
			found = append(found, fmt.Sprintf("command %d: a password will be proven in a session that is not salted", n))
		}
		for _, a := range authorizations(e.command) {
			switch {
			case a.handle == rsPW && len(a.value) > 0:
				found = append(found, fmt.Sprintf("command %d (%#x) carries a password", n, code))
			case a.handle>>24 == hmacSession && unsalted[a.handle]:
				found = append(found, fmt.Sprintf("command %d (%#x) uses an HMAC session that is not salted", n, code))
			}
		}
	}
	return found
}

const (
	startAuthSession = 0x176
	policyAuthValue  = 0x16b
	rhNull           = 0x40000007
	rsPW             = 0x40000009
	hmacSession      = 0x02
	tagSessions      = 0x8002
)

type authorization struct {
	handle uint32
	value  []byte
}

// authorizations reads the sessions of a command (TPM 2.0 Library, part 1, 18.4).
// Nothing tells where they begin but the kind of command, so both are tried: what
// fits is one of up to three handles and a size that leads to whole sessions.
func authorizations(command []byte) []authorization {
	if len(command) < 14 || binary.BigEndian.Uint16(command) != tagSessions {
		return nil
	}
	for handles := range 4 {
		rest := command[10:]
		if len(rest) < 4*handles+4 {
			return nil
		}
		size := binary.BigEndian.Uint32(rest[4*handles:])
		rest = rest[4*handles+4:]
		if size < 9 || uint64(size) > uint64(len(rest)) {
			continue
		}
		if all, ok := sessions(rest[:size]); ok {
			return all
		}
	}
	return nil
}

func sessions(area []byte) (all []authorization, ok bool) {
	for len(area) > 0 {
		if len(area) < 6 {
			return nil, false
		}
		a := authorization{handle: binary.BigEndian.Uint32(area)}
		nonce := 6 + int(binary.BigEndian.Uint16(area[4:]))
		if len(area) < nonce+3 {
			return nil, false
		}
		end := nonce + 3 + int(binary.BigEndian.Uint16(area[nonce+1:]))
		if len(area) < end {
			return nil, false
		}
		a.value, area = area[nonce+3:end], area[end:]
		all = append(all, a)
	}
	return all, true
}
