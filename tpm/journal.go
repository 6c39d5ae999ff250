package tpm

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// A journal is what a process that holds the lock writes into the lock file:
// what it has in the TPM, and what it is about to make there. One that was
// killed cannot flush; the next holder of the lock does.
//
//	object 80000000 000b6f…
//	session 02000000
//	making object 000b6f…
type journal struct {
	loaded  []loaded
	pending pending
}

// A pending command makes a handle that is not known yet.
type pending struct {
	kind   string
	name   []byte           // of the object, or the beginning of its public area
	before []tpm2.TPMHandle // sessions that were there already
}

const (
	pendingObject   = "object"
	pendingTemplate = "template"
	pendingSession  = "session"
)

func (j journal) empty() bool { return len(j.loaded) == 0 && j.pending.kind == "" }

func (j journal) marshal() []byte {
	var b bytes.Buffer
	for _, l := range j.loaded {
		if isTransient(l.handle) {
			fmt.Fprintf(&b, "object %08x %x\n", uint32(l.handle), l.name)
		} else {
			fmt.Fprintf(&b, "session %08x\n", uint32(l.handle))
		}
	}
	switch j.pending.kind {
	case pendingObject, pendingTemplate:
		fmt.Fprintf(&b, "making %s %x\n", j.pending.kind, j.pending.name)
	case pendingSession:
		b.WriteString("making session")
		for _, h := range j.pending.before {
			fmt.Fprintf(&b, " %08x", uint32(h))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// parseJournal reads what it can. A line that is no journal's, or was cut off
// by the kill, stands for nothing.
func parseJournal(data []byte) journal {
	var j journal
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		f := strings.Fields(s.Text())
		switch {
		case len(f) >= 2 && (f[0] == "object" || f[0] == "session"):
			h, ok := parseHandle(f[1])
			if !ok || isTransient(h) != (f[0] == "object") || !isTransient(h) && !isSession(h) {
				continue
			}
			l := loaded{handle: h}
			if len(f) > 2 {
				l.name, _ = hex.DecodeString(f[2])
			}
			j.loaded = append(j.loaded, l)
		case len(f) == 3 && f[0] == "making" && (f[1] == pendingObject || f[1] == pendingTemplate):
			name, err := hex.DecodeString(f[2])
			if err == nil {
				j.pending = pending{kind: f[1], name: name}
			}
		case len(f) >= 2 && f[0] == "making" && f[1] == pendingSession:
			p := pending{kind: pendingSession}
			for _, s := range f[2:] {
				if h, ok := parseHandle(s); ok {
					p.before = append(p.before, h)
				}
			}
			j.pending = p
		}
	}
	return j
}

func parseHandle(s string) (tpm2.TPMHandle, bool) {
	n, err := strconv.ParseUint(s, 16, 32)
	return tpm2.TPMHandle(n), err == nil
}

func isSession(h tpm2.TPMHandle) bool {
	t := tpm2.TPMHT(h >> 24)
	return t == tpm2.TPMHTHMACSession || t == tpm2.TPMHTPolicySession
}
