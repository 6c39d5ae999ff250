// Package term is where holdfast speaks to a person. Its rules:
//
//   - stdout belongs to the command's result; everything said goes to stderr.
//   - An error is one line, "holdfast: error: WHAT". What mends it follows on a
//     line of its own, "holdfast: hint: HOW"; a caller that folds stderr into a
//     message of its own, as every SDK does with a credential_process, gets
//     both on the one line.
//   - "holdfast: warning: WHAT" does not stop the command.
//   - A secret is read from the terminal, never from stdin, and never shown.
//   - No control character of anybody else's reaches the terminal.
package term

import (
	"fmt"
	"io"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// A Printer says things on stderr.
type Printer struct {
	W       io.Writer
	Program string // "holdfast"
}

// Error says err and its hint on two lines.
func (p Printer) Error(err error) {
	fmt.Fprintf(p.W, "%s: error: %s\n", p.Program, Clean(err.Error()))
	if hint := signer.Hint(err); hint != "" {
		fmt.Fprintf(p.W, "%s: hint: %s\n", p.Program, Clean(hint))
	}
}

// ErrorLine says err and its hint on one line.
func (p Printer) ErrorLine(err error) {
	fmt.Fprintf(p.W, "%s: error: %s\n", p.Program, OneLine(err))
}

// OneLine is err and its hint.
func OneLine(err error) string {
	line := err.Error()
	if hint := signer.Hint(err); hint != "" {
		line += "; " + hint
	}
	return Clean(line)
}

// Warn says what does not stop the command.
func (p Printer) Warn(message string) {
	fmt.Fprintf(p.W, "%s: warning: %s\n", p.Program, Clean(message))
}

// Say says what was done.
func (p Printer) Say(format string, args ...any) {
	fmt.Fprintf(p.W, "%s: %s\n", p.Program, Clean(fmt.Sprintf(format, args...)))
}

// Clean makes s one line without control characters, whoever it comes from.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}
