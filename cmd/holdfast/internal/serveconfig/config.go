// Package serveconfig reads the configuration file of "holdfast serve", which
// looks like an AWS config file:
//
//	# what all roles share
//	[defaults]
//	certificate      = /etc/edge/device.crt
//	private-key      = /etc/edge/device.key
//	trust-anchor-arn = arn:aws:rolesanywhere:…
//	profile-arn      = arn:aws:rolesanywhere:…
//
//	[role backup]
//	role-arn  = arn:aws:iam::…:role/backup
//	allow-uid = 1001, backup
//
//	[role metrics]
//	role-arn                 = arn:aws:iam::…:role/metrics
//	authorization-token-file = /run/holdfast/metrics.token
//
//	[listen 127.0.0.1:9911]
//	[listen unix:/run/holdfast/socket]
//	mode = 0660
//
// A line is a section, "key = value", a comment that begins with # or ;, or
// blank. A value goes to the end of its line: nothing is a comment there, and
// there are no quotes. The package knows the form and the kinds of sections;
// which keys there are is its caller's to say. Every error names the line.
package serveconfig

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// Kinds of sections. Defaults has no name; the others must.
const (
	Defaults = "defaults"
	Role     = "role"
	Listen   = "listen"
)

const maxFile = 1 << 20

// A Section is a heading and what is under it, in the file's order.
type Section struct {
	Kind, Name string
	Line       int
	Entries    []Entry
}

// An Entry is "key = value".
type Entry struct {
	Key, Value string
	Line       int
}

// An Error is what is wrong with a line.
type Error struct {
	Path string
	Line int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Read reads a file of at most 1 MiB.
func Read(path string) ([]Section, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxFile)
	}
	return Parse(path, text)
}

// Parse reads text; path stands for it in errors.
func Parse(path string, text []byte) ([]Section, error) {
	p := parser{path: path, sections: map[string]int{}}
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	lines.Buffer(nil, maxFile+1)
	for lines.Scan() {
		p.line++
		if err := p.take(lines.Text()); err != nil {
			return nil, &Error{path, p.line, err}
		}
	}
	return p.out, lines.Err()
}

type parser struct {
	path     string
	line     int
	out      []Section
	sections map[string]int // "kind name" → line
	keys     map[string]int // of the section at hand → line
}

func (p *parser) take(line string) error {
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		return fmt.Errorf("not UTF-8 text")
	}
	line = strings.TrimSpace(line)
	switch {
	case line == "", line[0] == '#', line[0] == ';':
		return nil
	case line[0] == '[':
		return p.section(line)
	}
	return p.entry(line)
}

func (p *parser) section(line string) error {
	inner, ok := strings.CutSuffix(line[1:], "]")
	if !ok {
		return fmt.Errorf("%q: a section's heading ends in ]", line)
	}
	kind, name, _ := strings.Cut(strings.TrimSpace(inner), " ")
	name = strings.TrimSpace(name)
	switch {
	case kind != Defaults && kind != Role && kind != Listen:
		return fmt.Errorf("section [%s] is none of [defaults], [role NAME], [listen ADDRESS]", inner)
	case kind == Defaults && name != "":
		return fmt.Errorf("section [defaults] has no name")
	case kind != Defaults && name == "":
		return fmt.Errorf("section [%s] needs a name: [%[1]s NAME]", kind)
	}
	id := kind + " " + name
	if first, again := p.sections[id]; again {
		return fmt.Errorf("section [%s] is there already, on line %d", strings.TrimSpace(id), first)
	}
	p.sections[id] = p.line
	p.keys = map[string]int{}
	p.out = append(p.out, Section{Kind: kind, Name: name, Line: p.line})
	return nil
}

func (p *parser) entry(line string) error {
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	switch {
	case !ok || key == "":
		// The line may be a secret that went astray: it is not repeated.
		return fmt.Errorf("neither a section nor key = value")
	case len(p.out) == 0:
		return fmt.Errorf("%s is before the first section", key)
	case value == "":
		return fmt.Errorf("%s has no value", key)
	}
	if first, again := p.keys[key]; again {
		return fmt.Errorf("%s is there already, on line %d", key, first)
	}
	p.keys[key] = p.line
	s := &p.out[len(p.out)-1]
	s.Entries = append(s.Entries, Entry{key, value, p.line})
	return nil
}
