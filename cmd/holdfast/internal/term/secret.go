package term

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/holdfast-iam/holdfast/signer"
)

// Sources is the help text for flags that take a [Source].
const Sources = "prompt, file:PATH, fd:NUMBER, env:NAME or credential:NAME (systemd's LoadCredential=)"

// maxSecret bounds what is read from a file or descriptor, in bytes.
const maxSecret = 64 << 10

// A Source says where a secret comes from. It implements pflag.Value; the zero
// value is the prompt for a passphrase.
type Source struct {
	// Noun is what the secret is called, "passphrase" if empty; Flag the flag
	// that sets the source, "--passphrase" if empty.
	Noun, Flag string

	kind, arg string
	fd        *descriptor // of kind fd
}

// A descriptor can be read but once: what it held is kept for the next time.
type descriptor struct {
	once sync.Once
	text []byte
	err  error
}

func (d *descriptor) read(number string) ([]byte, error) {
	d.once.Do(func() {
		n, _ := strconv.Atoi(number) // checked by Set
		f := os.NewFile(uintptr(n), "fd "+number)
		defer f.Close()
		d.text, d.err = readSecret(f)
	})
	return bytes.Clone(d.text), d.err
}

func (s *Source) noun() string { return cmp.Or(s.Noun, "passphrase") }

// Set parses one of [Sources].
func (s *Source) Set(text string) error {
	kind, arg, _ := strings.Cut(text, ":")
	switch {
	case text == "prompt":
	case (kind == "file" || kind == "env") && arg != "":
	case kind == "credential" && arg != "" && arg == filepath.Base(arg) && arg != "..":
	case kind == "fd":
		if n, err := strconv.Atoi(arg); err != nil || n < 0 {
			return fmt.Errorf("fd: takes the number of an open descriptor")
		}
	default:
		// text may be the secret itself, given by mistake: it is not repeated.
		return fmt.Errorf("not a source of secrets; give %s", Sources)
	}
	s.kind, s.arg, s.fd = kind, arg, &descriptor{}
	return nil
}

func (s *Source) String() string {
	if s.arg == "" {
		return s.kind
	}
	return s.kind + ":" + s.arg
}

// Asks reports whether a person is asked for the secret.
func (s *Source) Asks() bool { return s.kind == "" || s.kind == "prompt" }

// Given reports whether a source was set.
func (s *Source) Given() bool { return s.kind != "" }

// Type names the value in help texts.
func (*Source) Type() string { return "source" }

// Read fetches the secret that opens object. One trailing newline is not part
// of it.
func (s *Source) Read(ctx context.Context, object string) (signer.Secret, error) {
	var text []byte
	var err error
	switch s.kind {
	case "file":
		text, err = readFile(s.arg)
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return signer.Secret{}, signer.WithHint(
				fmt.Errorf("%s for %s: systemd credential %q: CREDENTIALS_DIRECTORY is not set", s.noun(), object, s.arg),
				fmt.Sprintf("run under systemd with LoadCredential=%s:PATH", s.arg))
		}
		text, err = readFile(filepath.Join(dir, s.arg))
	case "fd":
		text, err = s.fd.read(s.arg)
	case "env":
		value, ok := os.LookupEnv(s.arg)
		if !ok {
			err = fmt.Errorf("environment variable %s is not set", s.arg)
		}
		text = []byte(value)
	default:
		return s.prompt(ctx, object)
	}
	defer clear(text)
	if err != nil {
		return signer.Secret{}, fmt.Errorf("%s for %s: %w", s.noun(), object, err)
	}
	return signer.NewSecret(trimNewline(text)), nil
}

// ReadNew fetches a secret that is to protect a new object. At the prompt it
// is asked for twice. An empty one is an error.
func (s *Source) ReadNew(ctx context.Context, object string) (signer.Secret, error) {
	secret, err := s.Read(ctx, object)
	if err != nil {
		return secret, err
	}
	if secret.Empty() {
		return secret, fmt.Errorf("%s for %s: it is empty", s.noun(), object)
	}
	if !s.Asks() {
		return secret, nil
	}
	again, err := s.prompt(ctx, object+" again")
	if err != nil {
		return signer.Secret{}, err
	}
	defer again.Wipe()
	if !bytes.Equal(secret.Reveal(), again.Reveal()) {
		return signer.Secret{}, fmt.Errorf("%s for %s: the two do not agree", s.noun(), object)
	}
	return secret, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSecret(f)
}

func readSecret(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err == nil && len(text) > maxSecret {
		err = fmt.Errorf("longer than %d bytes", maxSecret)
	}
	return text, err
}

func trimNewline(b []byte) []byte {
	if t, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		return bytes.TrimSuffix(t, []byte("\r"))
	}
	return b
}

func (s *Source) required() error {
	if s.noun() == "passphrase" {
		return signer.ErrPassphraseRequired
	}
	return signer.ErrPINRequired // of a token or a TPM's key
}

// prompt asks on the controlling terminal, whatever stdin and stdout are.
func (s *Source) prompt(ctx context.Context, object string) (signer.Secret, error) {
	in, out, err := openTTY()
	if err != nil {
		return signer.Secret{}, signer.WithHint(
			fmt.Errorf("%s: %w, and there is no terminal to ask on", object, s.required()),
			fmt.Sprintf("give it with %s file:PATH, fd:NUMBER, env:NAME or credential:NAME", cmp.Or(s.Flag, "--passphrase")))
	}
	defer in.Close()
	defer out.Close()
	fd := int(in.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return signer.Secret{}, fmt.Errorf("%s for %s: %w", s.noun(), object, err)
	}
	fmt.Fprintf(out, "%s%s for %s: ", strings.ToUpper(s.noun()[:1]), s.noun()[1:], Clean(object))
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		fmt.Fprintln(out)
		defer clear(r.text)
		if errors.Is(r.err, io.EOF) && len(r.text) == 0 {
			r.err = s.required()
		}
		if r.err != nil {
			return signer.Secret{}, fmt.Errorf("%s for %s: %w", s.noun(), object, r.err)
		}
		return signer.NewSecret(r.text), nil
	case <-ctx.Done():
		_ = term.Restore(fd, state) // echo must not stay off
		fmt.Fprintln(out)
		return signer.Secret{}, context.Cause(ctx)
	}
}
