//go:build cgo

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// finalizeTime is how long the module gets to end well. holdfast kills the
// process a little later.
const finalizeTime = 800 * time.Millisecond

// A server answers holdfast's requests, several at a time: one that hangs in
// the module holds up no other.
type server struct {
	requests wire.Reader
	greeted  bool // guarded, as requests, by there being one reader
	turns    *turns
	done     chan int
	out      *os.File

	loaded chan struct{} // closed when module or loadErr is set
	module *cryptoki.Module
	failed error

	sending sync.Mutex
	frame   []byte

	mu       sync.Mutex
	next     uint32
	keys     map[uint32]*cryptoki.Key
	underWay map[uint32]*request
}

// A request is what its handler may ask about.
type request struct {
	s       *server
	id      uint32
	wait    func()
	answers chan wire.Answer
	pins    []signer.Secret // to wipe
}

func newServer(in, out *os.File) *server {
	s := &server{
		requests: wire.Reader{R: in}, done: make(chan int, 2), out: out, loaded: make(chan struct{}),
		keys: map[uint32]*cryptoki.Key{}, underWay: map[uint32]*request{},
	}
	s.turns = newTurns(func() { go s.read() })
	return s
}

// serve returns the exit code when holdfast says goodbye or is gone.
func (s *server) serve() int {
	go s.read()
	return <-s.done
}

// read reads requests until there are no more, or until another goroutine
// reads on.
func (s *server) read() {
	for {
		f, err := s.requests.Next()
		switch {
		case errors.Is(err, io.EOF), err == nil && f.Op == wire.OpBye:
			s.finalize()
			s.done <- exitOK
			return
		case err == nil && (f.Op == wire.OpHello) == s.greeted:
			err = fmt.Errorf("%w: operation %d out of turn", wire.ErrFrame, f.Op)
		case err == nil:
			switch f.Op {
			case wire.OpHello:
				s.greeted = true
				err = s.hello(f)
			case wire.OpAnswer:
				err = s.answer(f)
				clear(f.Body)
			case wire.OpSign:
				if !s.handleHere(f.ID, f.Op, bytes.Clone(f.Body)) {
					return
				}
			default:
				go s.handle(f.ID, f.Op, bytes.Clone(f.Body), func() {})
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "holdfast-pkcs11: error: "+err.Error())
			s.done <- exitFailure
			return
		}
	}
}

// handleHere handles a request in the goroutine that reads, which spares the
// way to another: that costs as much as the signature. Should it take longer
// than usual, another goroutine reads on, and handleHere returns false.
func (s *server) handleHere(id uint32, op wire.Op, body []byte) (stillReading bool) {
	more := s.requests.Buffered() > 0 // asked while this goroutine is sure to be the reader
	turn := s.turns.begin()
	handOver := func() { s.turns.handOver(turn) }
	if more {
		handOver()
	}
	s.handle(id, op, body, handOver)
	return s.turns.end(turn)
}

func (s *server) hello(f wire.Frame) error {
	var h wire.Hello
	if err := wire.Decode(f.Body, &h); err != nil {
		return err
	}
	if h.Version != wire.Version {
		return fmt.Errorf("%w: protocol %d, this is %d", wire.ErrFrame, h.Version, wire.Version)
	}
	go func() {
		s.module, s.failed = cryptoki.Load(h.Module)
		if s.failed != nil {
			s.send(0, wire.OpFail, wire.NewError(s.failed))
		} else {
			s.send(0, wire.OpReply, &wire.Welcome{Version: wire.Version, Release: versionString(), Library: s.module.Info()})
		}
		close(s.loaded)
	}()
	return nil
}

// handle answers one request. It calls wait before it waits for holdfast.
func (s *server) handle(id uint32, op wire.Op, body []byte, wait func()) {
	<-s.loaded
	if s.failed != nil {
		return // the reply to Hello says it all
	}
	r := &request{s: s, id: id, wait: wait, answers: make(chan wire.Answer, 1)}
	s.mu.Lock()
	s.underWay[id] = r
	s.mu.Unlock()
	ctx := context.WithValue(context.Background(), requestKey{}, r)
	reply, err := s.do(ctx, op, body)
	s.mu.Lock()
	delete(s.underWay, id)
	s.mu.Unlock()
	for _, pin := range r.pins {
		pin.Wipe()
	}
	switch {
	case op == wire.OpCloseKey:
	case err != nil:
		s.send(id, wire.OpFail, wire.NewError(err))
	default:
		s.send(id, wire.OpReply, reply)
	}
}

// send writes one message with one write. If holdfast is gone there is nobody
// to tell; the end of the requests ends this process.
func (s *server) send(id uint32, op wire.Op, m wire.Message) {
	s.sending.Lock()
	defer s.sending.Unlock()
	b, err := wire.Append(s.frame[:0], id, op, m)
	if err != nil {
		b, _ = wire.Append(s.frame[:0], id, wire.OpFail, wire.NewError(err))
	}
	_, _ = s.out.Write(b)
	if s.frame = b; cap(b) > 64<<10 {
		s.frame = nil
	}
}

type requestKey struct{}

// ask asks holdfast for a PIN and waits for the answer.
func ask(ctx context.Context, t pkcs11.Token, key *pkcs11.URI) (signer.Secret, error) {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return signer.Secret{}, fmt.Errorf("%s: %w", t, signer.ErrPINRequired)
	}
	r.s.send(r.id, wire.OpAsk, &wire.Ask{Token: t, Key: key})
	r.wait()
	a := <-r.answers
	if a.Fail != nil {
		return signer.Secret{}, a.Fail
	}
	r.pins = append(r.pins, a.PIN)
	return a.PIN, nil
}

// accepted lets holdfast know, before anything else can go wrong, that the PIN
// was right.
func accepted(ctx context.Context, _ pkcs11.Token) {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		r.s.send(r.id, wire.OpAccepted, nil)
	}
}

func (s *server) answer(f wire.Frame) error {
	var a wire.Answer
	if err := wire.Decode(f.Body, &a); err != nil {
		return err
	}
	s.mu.Lock()
	r := s.underWay[f.ID]
	s.mu.Unlock()
	if r == nil {
		return fmt.Errorf("%w: an answer to no question", wire.ErrFrame)
	}
	select {
	case r.answers <- a:
		return nil
	default:
		return fmt.Errorf("%w: two answers to one question", wire.ErrFrame)
	}
}

// finalize ends the module's use, unless it takes too long. The process then
// ends without running what C code left to be run at exit.
func (s *server) finalize() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-s.loaded
		if s.failed != nil {
			return
		}
		s.mu.Lock()
		keys := s.keys
		s.keys = nil
		s.mu.Unlock()
		for _, k := range keys {
			_ = k.Close() // the process ends
		}
		_ = s.module.Close()
	}()
	select {
	case <-done:
	case <-time.After(finalizeTime):
	}
}
