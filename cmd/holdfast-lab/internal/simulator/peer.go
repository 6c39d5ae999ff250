package simulator

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// headerSize is that of a command: tag, size, code.
const headerSize = 10

// A peer is the client at the other end of a connection.
type peer struct {
	conn     net.Conn
	r        *bufio.Reader
	patience time.Duration
}

func newPeer(conn net.Conn, patience time.Duration) *peer {
	return &peer{conn, bufio.NewReaderSize(conn, maxPacket), patience}
}

// await waits until the client sends something, for as long as it likes.
func (p *peer) await() error {
	if err := p.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := p.r.Peek(1); err != nil {
		return err
	}
	return p.conn.SetDeadline(time.Now().Add(p.patience))
}

// read reads n bytes.
func (p *peer) read(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(p.r, b)
	return b, err
}

// command reads a command, by the size in its header.
func (p *peer) command() ([]byte, error) {
	if err := p.await(); err != nil {
		return nil, err
	}
	header, err := p.read(headerSize)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[2:])
	if size < headerSize || size > maxPacket {
		return nil, sizeError(size)
	}
	rest, err := p.read(int(size) - headerSize)
	return append(header, rest...), err
}

func (p *peer) write(b []byte) error {
	if err := p.conn.SetDeadline(time.Now().Add(p.patience)); err != nil {
		return err
	}
	_, err := p.conn.Write(b)
	return err
}

// A sizeError is the size of what is no command.
type sizeError uint32

func (e sizeError) Error() string { return fmt.Sprintf("a command of %d bytes", uint32(e)) }
