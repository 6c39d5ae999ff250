package pkcs11_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

func TestParse(t *testing.T) {
	tests := []struct{ in, name, value string }{
		{"pkcs11:object=my%20key", "object", "my key"},
		{"PKCS11:object=a+b", "object", "a+b"},
		{"pkcs11:id=%00%ff%2b+", "id", "\x00\xff++"},
		{"pkcs11:id=", "id", ""},
		{"pkcs11:slot-id=0", "slot-id", "0"},
		{"pkcs11:slot-id=007", "slot-id", "7"},
		{"pkcs11:library-version=3", "library-version", "3.0"},
		{"pkcs11:object=100%25", "object", "100%"},
		{"pkcs11:object=Schlüssel", "object", "Schlüssel"},
		{"pkcs11:object=a b/c", "object", "a b/c"},
		{"pkcs11:object=a=b&c", "object", "a=b&c"},
		{"pkcs11:x-vendor=1", "x-vendor", "1"},
		{"pkcs11:?module-path=/usr/lib/x.so", "module-path", "/usr/lib/x.so"},
		{"pkcs11:?pin-source=file:/run/pin?x", "pin-source", "file:/run/pin?x"},
		{"pkcs11:token=t?x-v=1&x-v=2", "x-v", "1"},
		{"pkcs11:token=t?", "token", "t"},
	}
	for _, test := range tests {
		t.Run(test.in, func(t *testing.T) {
			u, err := pkcs11.Parse(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if v, ok := u.Get(test.name); !ok || v != test.value {
				t.Errorf("%s is %q, %v", test.name, v, ok)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for in, text := range map[string]string{
		"file:key.pem":                        "begin with",
		"pkcs11:object=a;object=b":            "twice",
		"pkcs11:x-v=a;x-v=b":                  "twice",
		"pkcs11:?pin-value=1234&pin-value=5":  "twice",
		"pkcs11:?pin-value=1234&pin-source=5": "both",
		"pkcs11:object":                       "no value",
		"pkcs11:;":                            "without a name",
		"pkcs11:object=%4":                    "hexadecimal",
		"pkcs11:object=%zz":                   "hexadecimal",
		"pkcs11:object=%+1":                   "hexadecimal",
		"pkcs11:slot-id=":                     "decimal",
		"pkcs11:slot-id=0x1":                  "decimal",
		"pkcs11:slot-id=-1":                   "decimal",
		"pkcs11:slot-id=18446744073709551616": "decimal",
		"pkcs11:library-version=1.2.3":        "version",
		"pkcs11:type=certificate":             "none of",
		"pkcs11:pin-value=1234":               "after a",
		"pkcs11:?object=1234":                 "before the",
		"pkcs11:?pin-value=12&34":             "without a value",
		"pkcs11:?pin-value=12&3 4=":           "whose name is none",
		"pkcs11:object=a\nb":                  "control",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := pkcs11.Parse(in)
			if !errors.Is(err, signer.ErrMalformed) || !strings.Contains(err.Error(), text) {
				t.Fatalf("error %v", err)
			}
			if strings.Contains(err.Error(), "34") && !strings.Contains(in, "pin-value=1234&") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error shows a PIN, or more than a line: %q", err)
			}
		})
	}
}

func TestAbsentIsNotEmpty(t *testing.T) {
	u, _ := pkcs11.Parse("pkcs11:object=")
	if _, ok := u.Get("object"); !ok {
		t.Error("an empty object is absent")
	}
	if _, ok := u.SlotID(); ok {
		t.Error("an absent slot is there")
	}
	if u.MatchesObject("private", "x", nil) || !u.MatchesObject("private", "", nil) {
		t.Error("an empty object does not match the empty label alone")
	}
	u, _ = pkcs11.Parse("pkcs11:slot-id=0")
	if n, ok := u.SlotID(); n != 0 || !ok {
		t.Error("slot 0 is none")
	}
	if u.MatchesToken(pkcs11.Library{}, pkcs11.Token{SlotID: 1}) || !u.MatchesToken(pkcs11.Library{}, pkcs11.Token{}) {
		t.Error("slot 0 does not match slot 0 alone")
	}
}

func TestUnknownMatchesNothing(t *testing.T) {
	u, _ := pkcs11.Parse("pkcs11:Token=x")
	if u.MatchesToken(pkcs11.Library{}, pkcs11.Token{}) || u.MatchesObject("cert", "", nil) || len(u.Unknown()) != 1 {
		t.Error("an unknown attribute matches")
	}
}

func TestPINIsRedacted(t *testing.T) {
	for _, name := range []string{"pin-value", "PIN-Value"} {
		u, err := pkcs11.Parse("pkcs11:token=t?" + name + "=12%2034")
		if err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%s", "%+v", "%#v", "%q", "%d", "%x"} {
			if s := fmt.Sprintf(verb, u); strings.Contains(s, "12") || !strings.Contains(s, "redacted") {
				t.Errorf("%s prints %s", verb, s)
			}
		}
		if !strings.Contains(u.Exact(), "=12%2034") {
			t.Error("Exact redacts")
		}
	}
}

// Parse undoes Exact, for attributes of every kind with any bytes.
func TestParseUndoesExact(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		b := make([]byte, r.IntN(12))
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		return string(b)
	}
	names := []string{"token", "manufacturer", "serial", "model", "library-manufacturer", "library-description",
		"object", "id", "slot-manufacturer", "slot-description", "x-vendor", "module-path", "module-name", "pin-source"}
	for range 5000 {
		u := &pkcs11.URI{}
		for _, name := range names {
			if r.IntN(2) == 0 {
				u = u.With(name, text())
			}
		}
		if r.IntN(2) == 0 {
			u = u.With("slot-id", fmt.Sprint(r.Uint64())).With("type", "cert").With("library-version", "2.40")
		}
		checkRoundTrip(t, u)
	}
}

func checkRoundTrip(t *testing.T, u *pkcs11.URI) {
	t.Helper()
	back, err := pkcs11.Parse(u.Exact())
	if err != nil || !back.Equal(u) || back.Exact() != u.Exact() {
		t.Fatalf("%s: %v, %v", u.Exact(), back, err)
	}
	if exact := u.Exact(); strings.ContainsFunc(exact, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Fatalf("%q is not plain ASCII", exact)
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{
		"pkcs11:token=a;object=b%20c;id=%01%02;type=private?pin-source=file:/x&module-path=/y&x=1&x=2",
		"pkcs11:slot-id=0;library-version=2.40", "pkcs11:", "pkcs11:?pin-value=1", "PKCS11:id=%00+;serial=%ff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := pkcs11.Parse(s)
		if err != nil {
			if !errors.Is(err, signer.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		checkRoundTrip(t, u)
		if pin, ok := u.Get("pin-value"); ok && len(pin) > 3 && strings.Contains(u.Without("pin-value").Exact(), "pin-value") {
			t.Fatal(u)
		}
	})
}
