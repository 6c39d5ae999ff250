package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A wire carries one command at a time to a TPM. After an error other than
// errNotSent it is of no use any more.
type wire interface {
	exchange(ctx context.Context, command []byte) (response []byte, err error)
	close() error
}

const (
	headerSize = 10
	// maxCommand is every TPM's, or more.
	maxCommand = 4096
	// maxResponse is above every TPM's; the kernel and TBS stop at 4096.
	maxResponse = 1 << 16
)

// errBroken: the connection ended, or answered what is no response. What
// became of the command is unknown.
var errBroken = errors.New("connection to the TPM broke")

// errNonsense: what was answered is no response of a TPM.
var errNonsense = errors.New("what it answers is not a TPM's")

// readResponse reads one response, by the size in its header.
func readResponse(r io.Reader, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, buf[:headerSize]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(buf[2:6])
	if size < headerSize || size > maxResponse {
		return nil, fmt.Errorf("%w: its size would be %d", errNonsense, size)
	}
	rsp := make([]byte, size)
	copy(rsp, buf[:headerSize])
	_, err := io.ReadFull(r, rsp[headerSize:])
	return rsp, err
}

// A streamWire speaks the TPM's own framing over a socket.
type streamWire struct {
	conn net.Conn
	buf  [headerSize]byte
}

func dialStream(ctx context.Context, network, addr string) (wire, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &streamWire{conn: conn}, nil
}

func (w *streamWire) exchange(ctx context.Context, command []byte) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	if err := w.conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = w.conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-cut // not into the next command
		}
	}()
	if _, err := w.conn.Write(command); err != nil {
		return nil, w.broken(ctx, err)
	}
	rsp, err := readResponse(w.conn, w.buf[:])
	if err != nil {
		return nil, w.broken(ctx, err)
	}
	return rsp, nil
}

func (w *streamWire) broken(ctx context.Context, err error) error {
	// The connection's timer may fire a moment before the context's.
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errBroken, context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

func (w *streamWire) close() error { return w.conn.Close() }

// busyDial reports whether connecting may work in a moment: the queue of the
// software TPM's socket is full, or another program has the device open.
func busyDial(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EBUSY)
}

// absentDial reports whether nothing listens, as while a TPM restarts.
func absentDial(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNRESET)
}

// A givenWire is a transport of go-tpm's, which knows no deadlines.
type givenWire struct {
	t    transport.TPM
	free chan struct{} // holds a token while a command runs
}

func newGivenWire(t transport.TPM) *givenWire {
	return &givenWire{t: t, free: make(chan struct{}, 1)}
}

// exchange waits for an earlier command that was given up, then runs this one.
func (w *givenWire) exchange(ctx context.Context, command []byte) ([]byte, error) {
	select {
	case w.free <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errBroken, context.Cause(ctx))
	}
	c := &call{done: make(chan struct{})}
	command = bytes.Clone(command)
	go func() {
		defer func() { <-w.free }()
		rsp, err := w.t.Send(command)
		if c.finish(rsp, err) {
			return
		}
		// Nobody waits any more, and nobody would flush what it made.
		if h := madeHandle(command, rsp); h != 0 {
			flush := []byte{0x80, 0x01, 0, 0, 0, 14}
			flush = binary.BigEndian.AppendUint32(flush, uint32(tpm2.TPMCCFlushContext))
			_, _ = w.t.Send(binary.BigEndian.AppendUint32(flush, uint32(h)))
		}
	}()
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.abandon() {
			return nil, fmt.Errorf("%w: %w", errBroken, context.Cause(ctx))
		}
	}
	if c.err == nil && len(c.rsp) < headerSize {
		c.err = errors.New("no response")
	}
	if c.err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, c.err)
	}
	return c.rsp, nil
}

// A call is a command on its way. It either finishes or is abandoned.
type call struct {
	done chan struct{}
	mu   sync.Mutex
	gone bool
	rsp  []byte
	err  error
}

func (c *call) finish(rsp []byte, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	c.rsp, c.err = rsp, err
	close(c.done)
	return true
}

func (c *call) abandon() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		return false
	default:
		c.gone = true
		return true
	}
}

// close keeps the transport, which cannot be opened again.
func (w *givenWire) close() error { return nil }

func (w *givenWire) shut() error {
	if c, ok := w.t.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
