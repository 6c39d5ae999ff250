package simulator

import (
	"encoding/binary"
	"net"
)

// Commands of swtpm's control channel, and their results.
const (
	controlInit        = 2 // and flags of four bytes: power off and on
	controlSetLocality = 5 // and a locality of one byte

	controlSuccess     = 0
	controlFail        = 0x9
	controlBadOrdinal  = 0xa
	controlBadLocality = 0x3d
)

// control answers the control commands of a client until it hangs up: what
// tpm2-tss sends before anything else, and swtpm_ioctl -i.
func (t *TPM) control(conn net.Conn) {
	p := newPeer(conn, t.patience)
	for {
		if p.await() != nil {
			return
		}
		b, err := p.read(4)
		if err != nil {
			return
		}
		result, known := uint32(controlBadOrdinal), true
		switch binary.BigEndian.Uint32(b) {
		case controlInit:
			if _, err := p.read(4); err != nil {
				return
			}
			result = controlSuccess
			if t.reset() != nil {
				result = controlFail
			}
		case controlSetLocality:
			if b, err = p.read(1); err != nil {
				return
			}
			if result = controlSuccess; b[0] != 0 {
				result = controlBadLocality
			}
		default:
			known = false // nor is its length
		}
		if p.write(binary.BigEndian.AppendUint32(nil, result)) != nil || !known {
			return
		}
	}
}
