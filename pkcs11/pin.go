package pkcs11

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// maxPIN is more than any token takes (CK_TOKEN_INFO counts to 255 in
// practice).
const maxPIN = 4096

// HasPIN reports whether the URI brings a PIN: pin-value or pin-source.
func (u *URI) HasPIN() bool {
	_, value := u.Get(AttrPINValue)
	_, source := u.Get(AttrPINSource)
	return value || source
}

// PIN returns the PIN that the URI brings, reading pin-source anew: a path,
// bare or after "file:", from whose contents one newline at the end is
// dropped. ok is false if the URI has neither pin-value nor pin-source. An
// unreadable or empty source is an error, never an empty PIN; so is the
// "|command" form, which is not run.
func (u *URI) PIN() (pin signer.Secret, ok bool, err error) {
	if v, ok := u.Get(AttrPINValue); ok {
		if v == "" {
			return signer.Secret{}, true, fmt.Errorf("pin-value: %w: it is empty", signer.ErrPINRequired)
		}
		return signer.NewSecret([]byte(v)), true, nil
	}
	source, ok := u.Get(AttrPINSource)
	if !ok {
		return signer.Secret{}, false, nil
	}
	pin, err = readPIN(source)
	if err != nil {
		return signer.Secret{}, true, fmt.Errorf("pin-source: %w", err)
	}
	return pin, true, nil
}

func readPIN(source string) (signer.Secret, error) {
	if strings.HasPrefix(source, "|") {
		return signer.Secret{}, signer.WithHint(errors.New("commands are not run"),
			"write the PIN to a file that only this user can read and name that: pin-source=/path")
	}
	ref := signer.Reference{Scheme: signer.SchemeFile, Value: source}
	if scheme, _, _ := strings.Cut(source, ":"); strings.EqualFold(scheme, "file") {
		ref = signer.ParseReference(source)
	}
	f, err := os.Open(ref.Value)
	if err != nil {
		return signer.Secret{}, signer.WithHint(err, "name a file that exists and that this user can read")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPIN+1))
	defer clear(b)
	if err != nil {
		return signer.Secret{}, err
	}
	if len(b) > maxPIN {
		return signer.Secret{}, fmt.Errorf("%s: %w: more than %d bytes are no PIN", ref.Value, signer.ErrMalformed, maxPIN)
	}
	pin := b
	if n := len(pin); n > 0 && pin[n-1] == '\n' {
		pin = pin[:n-1]
		if n > 1 && pin[n-2] == '\r' {
			pin = pin[:n-2]
		}
	}
	if len(pin) == 0 {
		return signer.Secret{}, fmt.Errorf("%s: %w: the file is empty", ref.Value, signer.ErrPINRequired)
	}
	return signer.NewSecret(pin), nil
}
