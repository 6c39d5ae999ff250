package hosted

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// maxOutput is how much of what the host and its module print is kept, and
// maxLogged how much is logged.
const (
	maxOutput = 4 << 10
	maxLogged = 64 << 10
)

// An output takes what the module prints, so that it neither blocks nor
// reaches the user's terminal, and keeps the end of it.
type output struct {
	log    *slog.Logger
	redact func([]byte) []byte
	done   chan struct{}

	mu   sync.Mutex
	tail []byte
}

func (o *output) read(r *os.File) {
	defer close(o.done)
	defer r.Close()
	buf := make([]byte, maxOutput)
	logged := 0
	for {
		n, err := r.Read(buf)
		if n > 0 {
			o.mu.Lock()
			o.tail = append(o.tail, buf[:n]...)
			if over := len(o.tail) - maxOutput; over > 0 {
				o.tail = o.tail[:copy(o.tail, o.tail[over:])]
			}
			o.mu.Unlock()
			if logged < maxLogged {
				text, crashed := beforeCrash(o.redact(buf[:n]))
				o.log.Debug("the PKCS#11 module printed", "text", string(text))
				if crashed {
					logged = maxLogged
				}
			}
			logged += n
		}
		if err != nil {
			return
		}
	}
}

// beforeCrash cuts off the Go runtime's report of a crash, which shows registers:
// they may hold part of a PIN.
func beforeCrash(text []byte) (before []byte, crashed bool) {
	for _, mark := range []string{"SIG", "fatal error: ", "PC=", "goroutine "} {
		if i := bytes.Index(text, []byte(mark)); i == 0 || i > 0 && text[i-1] == '\n' {
			return text[:i], true
		}
	}
	return text, false
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.redact(o.tail))
}

// lastLine returns what was printed last, cut to a line's length.
func (o *output) lastLine() string {
	text := strings.TrimSpace(o.text())
	line := text[strings.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(line[:min(len(line), 200)], "?")
}

// crash returns the signal that the Go runtime of the host reported, or "".
func (o *output) crash() string {
	_, rest, ok := strings.Cut(o.text(), "[signal ")
	if !ok {
		_, rest, ok = strings.Cut("\n"+o.text(), "\nSIG")
		rest = "SIG" + rest
	}
	if !ok {
		return ""
	}
	rest = rest[:min(len(rest), 60)]
	if end := strings.IndexAny(rest, "\n]"); end >= 0 {
		rest = rest[:end]
	}
	signal, _, _ := strings.Cut(rest, " code=")
	return signal
}

// redactAll replaces each of secrets in b, which it does not change.
func redactAll(b []byte, secrets [][]byte) []byte {
	for _, s := range secrets {
		if len(s) > 0 {
			b = bytes.ReplaceAll(b, s, []byte("[redacted]"))
		}
	}
	return b
}
