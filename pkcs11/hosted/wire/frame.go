package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version of the protocol. Any change to a message changes it.
const Version = 1

// Sizes of a frame, its length field not counted.
const (
	MaxFrame = 8 << 20 // a list of some thousand certificates
	minFrame = 5
	header   = 9
)

// An Op says what a frame holds.
type Op uint8

// Requests are numbered from 1 on and end in Reply or Fail, except for
// CloseKey and Bye, which have no reply.
const (
	OpHello        Op = iota + 1 // Hello → Welcome
	OpTokens                     // none → Tokens
	OpOpen                       // Open → Opened
	OpSign                       // Sign → Signature
	OpCertificates               // Query → Certificates
	OpKeyCerts                   // KeyRef → Certificates
	OpList                       // Query → Contents
	OpGenerate                   // Generate → Opened
	OpImport                     // Import → Certificates, of which there is one
	OpCloseKey                   // KeyRef
	OpBye                        // none
	OpAsk                        // to holdfast: Ask, for the PIN a request needs
	OpAnswer                     // to the host: Answer
	OpAccepted                   // to holdfast, none: the token took the PIN answered last
	OpReply                      // to holdfast: the request's result
	OpFail                       // to holdfast: Error
	lastOp         = OpFail
)

// ErrFrame: the other side does not keep to the protocol.
var ErrFrame = errors.New("broken protocol between holdfast and holdfast-pkcs11")

// A Frame is one message.
type Frame struct {
	ID   uint32
	Op   Op
	Body []byte
}

// Append encodes a frame with message m, which may be nil, and appends it to b.
func Append(b []byte, id uint32, op Op, m Message) ([]byte, error) {
	at := len(b)
	b = append(b, make([]byte, header)...)
	if m != nil {
		c := Codec{b: b, writing: true}
		m.code(&c)
		b = c.b
	}
	size := len(b) - at - 4
	if size > MaxFrame {
		return b[:at], fmt.Errorf("%w: a message of %d bytes, the limit is %d", ErrFrame, size, MaxFrame)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(size))
	binary.BigEndian.PutUint32(b[at+4:], id)
	b[at+8] = byte(op)
	return b, nil
}

// A Reader takes frames from a stream with as few reads as it can. The zero
// value but for R is ready; it is not safe for concurrent use.
type Reader struct {
	R   io.Reader
	buf []byte
	at  int // of the first byte not yet given out
}

// Next returns the next frame. Its body is valid until the following call. At
// the end of the stream it returns io.EOF, within a frame
// io.ErrUnexpectedEOF, and for anything else that is no frame an error that
// wraps ErrFrame.
func (r *Reader) Next() (Frame, error) {
	if err := r.want(header); err != nil {
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(r.buf[r.at:])
	if size < minFrame || size > MaxFrame {
		return Frame{}, fmt.Errorf("%w: a frame of %d bytes", ErrFrame, size)
	}
	if err := r.want(4 + int(size)); err != nil {
		return Frame{}, err
	}
	p := r.buf[r.at : r.at+4+int(size)]
	r.at += len(p)
	f := Frame{ID: binary.BigEndian.Uint32(p[4:]), Op: Op(p[8]), Body: p[header:]}
	if f.Op == 0 || f.Op > lastOp {
		return Frame{}, fmt.Errorf("%w: operation %d", ErrFrame, f.Op)
	}
	return f, nil
}

// Buffered returns how many bytes beyond the last frame have come already.
func (r *Reader) Buffered() int { return len(r.buf) - r.at }

// want waits until n bytes are in the buffer. It grows the buffer with what
// has come, not with what was announced.
func (r *Reader) want(n int) error {
	for len(r.buf)-r.at < n {
		if r.at > 0 {
			keep := copy(r.buf, r.buf[r.at:])
			clear(r.buf[keep:])
			r.buf, r.at = r.buf[:keep], 0
		}
		if len(r.buf) == cap(r.buf) {
			bigger := make([]byte, len(r.buf), max(4096, 2*cap(r.buf)))
			copy(bigger, r.buf)
			clear(r.buf)
			r.buf = bigger
		}
		got, err := r.R.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+got]
		if got > 0 {
			continue
		}
		if err == io.EOF && len(r.buf) > r.at {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	return nil
}
