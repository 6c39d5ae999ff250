package tpmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Proxy is a socket before a TPM, which records all that passes and can
// answer in the TPM's place.
type Proxy struct {
	Path string

	mu       sync.Mutex
	bytes    []byte
	passed   []exchange
	commands []uint32
	fault    func(code uint32, command []byte) (rc uint32, ok bool)
	answer   func(code uint32, command []byte) (response []byte, ok bool)
	conns    []net.Conn
}

// An exchange is a command and what was answered.
type exchange struct{ command, response []byte }

// NewProxy starts a proxy before s, on a unix socket.
func NewProxy(t testing.TB, s *TPM) *Proxy {
	t.Helper()
	p := &Proxy{Path: filepath.Join(s.Dir(), "proxy")}
	l, err := net.Listen("unix", p.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if s.port == 0 { // tpm2-tss wants a control channel too
		if err := os.Symlink(s.Socket()+".ctrl", p.Path+".ctrl"); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c, s)
		}
	}()
	return p
}

// Spec names the proxy as a TPM.
func (p *Proxy) Spec() string { return "swtpm:path=" + p.Path }

// Fault sets what answers commands in the TPM's place, if ok.
func (p *Proxy) Fault(f func(code uint32, command []byte) (rc uint32, ok bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Answer sets what answers commands in the TPM's place, if ok: with whatever
// bytes, and then hangs up; nil is no answer, until the client hangs up.
func (p *Proxy) Answer(f func(code uint32, command []byte) (response []byte, ok bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Captured returns every byte that passed.
func (p *Proxy) Captured() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]byte(nil), p.bytes...)
}

// Saw reports whether text is among the bytes that passed.
func (p *Proxy) Saw(text []byte) bool { return bytes.Contains(p.Captured(), text) }

// Forget drops what was recorded.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes, p.passed, p.commands = nil, nil, nil
}

// Commands returns the codes of the commands since the last call.
func (p *Proxy) Commands() []uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.commands
	p.commands = nil
	return c
}

// Break closes all connections.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// dialUp connects to the TPM, whose queue is short: those that a broken
// connection left are still in it.
func dialUp(s *TPM) (net.Conn, error) {
	network, addr := s.address()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		up, err := net.Dial(network, addr)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return up, err
		}
	}
}

func (p *Proxy) serve(client net.Conn, s *TPM) {
	defer client.Close()
	up, err := dialUp(s)
	if err != nil {
		return
	}
	defer up.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client)
	p.mu.Unlock()
	for {
		cmd, err := packet(client)
		if err != nil {
			return
		}
		p.mu.Lock()
		code := binary.BigEndian.Uint32(cmd[6:])
		p.bytes = append(p.bytes, cmd...)
		p.commands = append(p.commands, code)
		fault, answer := p.fault, p.answer
		p.mu.Unlock()
		var rsp []byte
		if answer != nil {
			if bytes, ok := answer(code, cmd); ok {
				if bytes == nil {
					_, _ = io.Copy(io.Discard, client)
				}
				_, _ = client.Write(bytes)
				return
			}
		}
		if fault != nil {
			if rc, ok := fault(code, cmd); ok {
				rsp = []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
				binary.BigEndian.PutUint32(rsp[6:], rc)
			}
		}
		if rsp == nil {
			if _, err := up.Write(cmd); err != nil {
				return
			}
			if rsp, err = packet(up); err != nil {
				return
			}
		}
		p.mu.Lock()
		p.bytes = append(p.bytes, rsp...)
		p.passed = append(p.passed, exchange{cmd, rsp})
		p.mu.Unlock()
		// In two parts, as a slow line would bring it.
		if _, err := client.Write(rsp[:5]); err != nil {
			return
		}
		if _, err := client.Write(rsp[5:]); err != nil {
			return
		}
	}
}

func packet(r io.Reader) ([]byte, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	b := make([]byte, max(10, binary.BigEndian.Uint32(head[2:])))
	copy(b, head)
	_, err := io.ReadFull(r, b[10:])
	return b, err
}
