package tpm

import (
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// What a Device has to know of the commands that pass through it, read from
// their bytes (TPM 2.0 Library, part 1, clause 18; part 3).

// A cursor takes fields off a command or response. ok turns false at the first
// one that is not there.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n < 0 || n > len(c.b) {
		c.ok = false
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) uint16() int {
	if b := c.take(2); c.ok {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); c.ok {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// sized takes a TPM2B.
func (c *cursor) sized() []byte { return c.take(c.uint16()) }

func commandCode(command []byte) tpm2.TPMCC {
	return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:10]))
}

// parameters returns what follows the handles and the sessions.
func parameters(command []byte, handleBytes int) cursor {
	c := cursor{command, true}
	tag := c.uint16()
	c.take(8 + handleBytes)
	if tpm2.TPMST(tag) == tpm2.TPMSTSessions { //nolint:gosec // 16 bits
		c.take(int(c.uint32()))
	}
	return c
}

// nameInLoad returns the Name of the object that Load or LoadExternal loads.
func nameInLoad(command []byte, handleBytes int) []byte {
	c := parameters(command, handleBytes)
	c.sized()
	public := c.sized()
	if !c.ok {
		return nil
	}
	return nameOf(public)
}

// templateIn returns the template of CreatePrimary or CreateLoaded without its
// unique field, which the TPM fills.
func templateIn(command []byte) []byte {
	c := parameters(command, 4)
	c.sized()
	public := c.sized()
	if !c.ok || len(public) < 12 {
		return nil
	}
	unique := 2
	if tpm2.TPMAlgID(binary.BigEndian.Uint16(public)) == tpm2.TPMAlgECC {
		unique = 4
	}
	tail := public[len(public)-unique:]
	for _, b := range tail {
		if b != 0 {
			return nil
		}
	}
	return public[:len(public)-unique]
}

// nameInResponse returns the Name of the object that was made, or nil.
func nameInResponse(cc tpm2.TPMCC, rsp []byte) []byte {
	c := cursor{rsp, true}
	tag := c.uint16()
	c.take(8 + 4)
	if tpm2.TPMST(tag) == tpm2.TPMSTSessions { //nolint:gosec // 16 bits
		c.uint32()
	}
	var name []byte
	switch cc {
	case tpm2.TPMCCLoad, tpm2.TPMCCLoadExternal:
		name = append(name, c.sized()...)
	case tpm2.TPMCCCreatePrimary:
		name = nameOf(c.sized())
	}
	if !c.ok {
		return nil
	}
	return name
}

// madeHandle returns the handle that a command made, or 0.
func madeHandle(command, rsp []byte) tpm2.TPMHandle {
	if len(rsp) < headerSize+4 || responseCode(rsp) != tpm2.TPMRCSuccess {
		return 0
	}
	switch commandCode(command) {
	case tpm2.TPMCCLoad, tpm2.TPMCCLoadExternal, tpm2.TPMCCCreatePrimary, tpm2.TPMCCCreateLoaded,
		tpm2.TPMCCContextLoad, tpm2.TPMCCStartAuthSession, tpm2.TPMCCHashSequenceStart, tpm2.TPMCCHMACStart:
		return tpm2.TPMHandle(binary.BigEndian.Uint32(rsp[headerSize:]))
	}
	return 0
}

// nameOf computes the Name of an object from its public area.
func nameOf(public []byte) []byte {
	c := cursor{public, true}
	c.uint16()
	alg := tpm2.TPMIAlgHash(c.uint16()) //nolint:gosec // 16 bits
	h, err := alg.Hash()
	if !c.ok || err != nil || !h.Available() {
		return nil
	}
	sum := h.New()
	sum.Write(public)
	return sum.Sum(binary.BigEndian.AppendUint16(nil, uint16(alg)))
}

// endedSessions returns the sessions that a command ends if it succeeds: those
// that it uses without the attribute continueSession.
func endedSessions(command []byte) []tpm2.TPMHandle {
	c := cursor{command, true}
	if tpm2.TPMST(c.uint16()) != tpm2.TPMSTSessions { //nolint:gosec // 16 bits
		return nil
	}
	c.take(4)
	c.take(4 * handleCount(tpm2.TPMCC(c.uint32())))
	c = cursor{c.take(int(c.uint32())), c.ok}
	var ended []tpm2.TPMHandle
	for c.ok && len(c.b) > 0 {
		h := tpm2.TPMHandle(c.uint32())
		c.sized()
		attrs := c.take(1)
		c.sized()
		if c.ok && h != tpm2.TPMRSPW && attrs[0]&1 == 0 {
			ended = append(ended, h)
		}
	}
	return ended
}

// handleCount returns the number of handles before the sessions, of the
// commands that this program sends with sessions.
func handleCount(cc tpm2.TPMCC) int {
	switch cc {
	case tpm2.TPMCCGetRandom, tpm2.TPMCCGetCapability, tpm2.TPMCCLoadExternal, tpm2.TPMCCHash,
		tpm2.TPMCCPCRRead:
		return 0
	case tpm2.TPMCCEvictControl, tpm2.TPMCCCertify, tpm2.TPMCCActivateCredential, tpm2.TPMCCNVRead, tpm2.TPMCCNVWrite,
		tpm2.TPMCCNVUndefineSpace, tpm2.TPMCCPolicySecret, tpm2.TPMCCPolicySigned, tpm2.TPMCCCertifyCreation,
		tpm2.TPMCCObjectChangeAuth, tpm2.TPMCCDuplicate:
		return 2
	case tpm2.TPMCCPolicyNV:
		return 3
	}
	return 1
}
