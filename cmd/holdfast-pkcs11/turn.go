//go:build cgo

package main

import (
	"sync/atomic"
	"time"
)

// quick is how long a signature may keep the next request waiting.
const quick = time.Millisecond

// A turn is the handling of a request by the goroutine that reads requests.
type turn struct {
	start time.Time
	over  atomic.Bool
}

// turns watches over the turn under way. A timer for each would cost as much
// as the signature, so there is one, which runs while there are turns.
type turns struct {
	now     atomic.Pointer[turn]
	running atomic.Bool
	timer   *time.Timer
	next    func() // reads on in another goroutine
}

func newTurns(next func()) *turns {
	t := &turns{next: next}
	t.timer = time.AfterFunc(time.Hour, t.look)
	t.timer.Stop()
	return t
}

func (t *turns) begin() *turn {
	turn := &turn{start: time.Now()}
	t.now.Store(turn)
	t.watch()
	return turn
}

func (t *turns) watch() {
	if !t.running.Swap(true) {
		t.timer.Reset(quick)
	}
}

func (t *turns) look() {
	turn := t.now.Load()
	if turn == nil {
		t.running.Store(false)
		if t.now.Load() != nil { // it began in between
			t.watch()
		}
		return
	}
	if time.Since(turn.start) >= quick {
		t.handOver(turn)
	}
	t.timer.Reset(quick)
}

// handOver lets another goroutine read on.
func (t *turns) handOver(turn *turn) {
	if !turn.over.Swap(true) {
		t.now.CompareAndSwap(turn, nil)
		t.next()
	}
}

// end reports whether the caller still is the one who reads.
func (t *turns) end(turn *turn) bool {
	t.now.CompareAndSwap(turn, nil)
	return !turn.over.Swap(true)
}
