package signer

import (
	"fmt"
	"log/slog"
)

// redacted is what every way of printing a Secret shows.
const redacted = "[redacted]"

// A Secret is a PIN, a passphrase or an authorization value. However it is
// printed, logged or marshalled, it shows "[redacted]"; only [Secret.Reveal]
// returns what it holds. The zero value is the empty secret.
type Secret struct{ b []byte }

// NewSecret copies b.
func NewSecret(b []byte) Secret { return Secret{append([]byte(nil), b...)} }

// Reveal returns the secret's bytes, which the caller must neither change nor
// keep longer than needed.
func (s Secret) Reveal() []byte { return s.b }

// Empty reports whether the secret holds no bytes.
func (s Secret) Empty() bool { return len(s.b) == 0 }

// Wipe overwrites the secret's bytes, for every copy of s.
func (s Secret) Wipe() { clear(s.b) }

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
