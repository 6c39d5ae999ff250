package awsfiles

import (
	"bytes"
	"fmt"
	"strings"
)

// A Setting is a key of a profile and the value it is to have.
type Setting struct {
	Key, Value string
	// IfPresent leaves a profile alone that does not have the key.
	IfPresent bool
}

// Set returns text with the settings of one profile changed, and every other
// byte as it was. The profile is appended if there is none. Of several
// sections of its name the last is taken, which is the one SDKs believe that
// accept them at all.
//
// The syntax is what Python's configparser, and so the AWS CLI, takes it for:
// "key = value" or "key: value", comments of whole lines, and values that go
// on in lines indented deeper than their key.
func Set(text []byte, profile string, settings []Setting) ([]byte, error) {
	if err := check(profile, settings); err != nil {
		return nil, err
	}
	lines := splitLines(text)
	s := findSection(lines, profile)
	if s == nil {
		return appendProfile(text, lines, profile, settings), nil
	}
	var added []string
	for _, set := range settings {
		if !s.replace(lines, set) && !set.IfPresent {
			added = append(added, s.indent+set.Key+" = "+set.Value)
		}
	}
	eol := lines[s.header].eol
	if eol == "" {
		eol = eolOf(lines)
	}
	var out bytes.Buffer
	for i, l := range lines {
		if !l.dropped {
			out.WriteString(l.body + l.eol)
		}
		if i == s.last && len(added) > 0 {
			if l.eol == "" {
				out.WriteString(eol)
			}
			out.WriteString(strings.Join(added, eol) + eol)
		}
	}
	return out.Bytes(), nil
}

func check(profile string, settings []Setting) error {
	if profile == "" || profile != strings.TrimSpace(profile) || strings.ContainsFunc(profile, func(r rune) bool { return r < ' ' || r == ']' || r == 0x7f }) {
		return fmt.Errorf("%q cannot be the name of a profile", profile)
	}
	for _, s := range settings {
		if strings.ContainsFunc(s.Value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("the value of %s has a control character in it", s.Key)
		}
	}
	return nil
}

type line struct {
	body, eol string
	dropped   bool
}

func splitLines(text []byte) []*line {
	var lines []*line
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			return append(lines, &line{body: string(text)})
		}
		body := strings.TrimSuffix(string(text[:n-1]), "\r")
		lines = append(lines, &line{body: body, eol: string(text[len(body):n])})
		text = text[n:]
	}
	return lines
}

func eolOf(lines []*line) string {
	if len(lines) > 0 && lines[0].eol != "" {
		return lines[0].eol
	}
	return "\n"
}

// A section is where a profile stands, by numbers of lines.
type section struct {
	header  int
	last    int    // the last line of its last key, or the header
	indent  string // of its last key
	options []option
}

type option struct {
	key       string // in lower case, as SDKs read it
	at        int
	value     int   // where the value begins in the line
	continued []int // the lines it goes on in
}

func findSection(lines []*line, profile string) *section {
	var found, current *section // current is nil in others' sections
	inOption, indent := false, 0
	for i, l := range lines {
		body := l.body
		if i == 0 {
			body = strings.TrimPrefix(body, "\ufeff")
		}
		trimmed := strings.TrimSpace(body)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		depth := len(body) - len(strings.TrimLeft(body, " \t"))
		if inOption && depth > indent {
			if current != nil {
				o := &current.options[len(current.options)-1]
				o.continued, current.last = append(o.continued, i), i
			}
			continue
		}
		if name, ok := headerName(trimmed); ok {
			inOption, current = false, nil
			if name == profile {
				current = &section{header: i, last: i}
				found = current
			}
			continue
		}
		inOption, indent = true, depth
		if current != nil {
			current.add(i, l.body, depth)
		}
	}
	return found
}

func headerName(trimmed string) (string, bool) {
	name, ok := strings.CutPrefix(trimmed, "[")
	name, _, closed := strings.Cut(name, "]")
	return strings.TrimSpace(name), ok && closed
}

func (s *section) add(at int, body string, depth int) {
	o := option{at: at, value: len(body)}
	if i := strings.IndexAny(body, "=:"); i >= 0 {
		o.key = strings.ToLower(strings.TrimSpace(body[:i]))
		rest := body[i+1:]
		o.value = i + 1 + len(rest) - len(strings.TrimLeft(rest, " \t"))
	}
	s.options = append(s.options, o)
	s.last, s.indent = at, body[:depth]
}

// replace changes the value of a key, and drops what the key had beyond that
// one line: parts of the old value, and the same key again.
func (s *section) replace(lines []*line, set Setting) (found bool) {
	for _, o := range s.options {
		if o.key != strings.ToLower(set.Key) {
			continue
		}
		for _, i := range o.continued {
			lines[i].dropped = true
		}
		if found {
			lines[o.at].dropped = true
			continue
		}
		found = true
		lines[o.at].body = lines[o.at].body[:o.value] + set.Value
	}
	return found
}

func appendProfile(text []byte, lines []*line, profile string, settings []Setting) []byte {
	eol := eolOf(lines)
	out := bytes.Clone(text)
	if n := len(lines); n > 0 {
		if lines[n-1].eol == "" {
			out = append(out, eol...)
		}
		if strings.TrimSpace(lines[n-1].body) != "" {
			out = append(out, eol...)
		}
	}
	out = append(out, "["+profile+"]"+eol...)
	for _, s := range settings {
		if !s.IfPresent {
			out = append(out, s.Key+" = "+s.Value+eol...)
		}
	}
	return out
}
