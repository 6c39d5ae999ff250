package wire_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
	"github.com/holdfast-iam/holdfast/signer"
)

// messages returns an empty message of each kind.
func messages() []wire.Message {
	return []wire.Message{
		&wire.Hello{}, &wire.Welcome{}, &wire.Open{}, &wire.Opened{}, &wire.KeyRef{}, &wire.Sign{}, &wire.Signature{}, &wire.Query{},
		&wire.Generate{}, &wire.Import{}, &wire.Tokens{}, &wire.Certificates{}, &wire.Contents{}, &wire.Ask{}, &wire.Answer{}, &wire.Error{},
	}
}

func samples(t testing.TB) []wire.Message {
	t.Helper()
	uri, err := pkcs11.Parse("pkcs11:token=a%20b;id=%00%FF;slot-id=0")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	token := pkcs11.Token{Label: "a b", Serial: "1", SlotID: 1 << 40, LoginRequired: true, UserPINCountLow: true}
	cert := pkcs11.Certificate{DER: []byte{0x30, 0}, Label: "c", ID: []byte{1}, Token: token, Issuer: true}
	key := pkcs11.KeyInfo{Label: "k", Token: token, Algorithm: "EC P-256", CanSign: &yes, Certificate: -1}
	bad := wire.NewError(signer.WithHint(signer.ErrPINIncorrect, "give another"))
	o := wire.Options{PIN: true, MaxSessions: 3, Replace: true}
	return []wire.Message{
		&wire.Hello{Version: 1, Module: "/m.so"}, &wire.Welcome{Version: 1, Library: pkcs11.Library{Path: "/m.so"}},
		&wire.Open{URI: uri, Certificates: true, Options: o},
		&wire.Opened{Key: 7, URI: uri, Info: key, Certificates: []pkcs11.Certificate{cert}, CertificatesError: bad},
		&wire.Sign{Key: 7, Message: true, Hash: 5, PSS: true, Salt: -1, Data: []byte("x")}, &wire.Signature{Bytes: []byte("y")},
		&wire.Contents{Contents: []pkcs11.Contents{{Token: token, Keys: []pkcs11.KeyInfo{key}, Certificates: []pkcs11.Certificate{cert}, Err: bad}}},
		&wire.Ask{Token: token, Key: uri}, &wire.Answer{PIN: signer.NewSecret([]byte("p")), Fail: bad}, bad,
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range samples(t) {
		b, err := wire.Append(nil, 9, wire.OpReply, m)
		if err != nil {
			t.Fatal(err)
		}
		r := wire.Reader{R: bytes.NewReader(b)}
		f, err := r.Next()
		if err != nil || f.ID != 9 || f.Op != wire.OpReply {
			t.Fatal(f, err)
		}
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(wire.Message)
		if err := wire.Decode(f.Body, got); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if again, _ := wire.Append(nil, 9, wire.OpReply, got); !bytes.Equal(again, b) {
			t.Errorf("%T came back as %+v", m, got)
		}
		for i := range f.Body {
			if err := wire.Decode(f.Body[:i], got); !errors.Is(err, wire.ErrFrame) {
				t.Errorf("%T cut at %d: %v", m, i, err)
			}
		}
	}
}

// TestPINStaysInAnswer: a URI leaves its PIN behind.
func TestPINStaysInAnswer(t *testing.T) {
	for _, query := range []string{"?pin-value=sesame", "?pin-source=/sesame", "?module-name=m&pin-value=sesame"} {
		uri, err := pkcs11.Parse("pkcs11:token=a" + query)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []wire.Message{&wire.Open{URI: uri}, &wire.Query{URI: uri}, &wire.Generate{URI: uri}, &wire.Import{URI: uri}} {
			if b, err := wire.Append(nil, 1, wire.OpOpen, m); err != nil || bytes.Contains(b, []byte("sesame")) {
				t.Errorf("%T: %q, %v", m, b, err)
			}
		}
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for _, kind := range []error{signer.ErrPINIncorrect, signer.ErrTokenGone, pkcs11.ErrModuleFailed, signer.ErrKeyNotFound} {
		e := wire.NewError(signer.WithHint(kind, "mend it"))
		if !errors.Is(e, kind) || errors.Is(e, signer.ErrAmbiguous) || e.Error() != kind.Error() || signer.Hint(e) != "mend it" {
			t.Errorf("%v became %v", kind, e)
		}
	}
}

// FuzzDecode: no bytes make a message that panics, keeps more memory than its
// frame accounts for, or changes when written and read once more.
func FuzzDecode(f *testing.F) {
	for _, m := range samples(f) {
		b, err := wire.Append(nil, 1, wire.OpReply, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[9:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range messages() {
			err := wire.Decode(body, m)
			if err != nil {
				if !errors.Is(err, wire.ErrFrame) {
					t.Fatalf("%T: %v", m, err)
				}
				continue
			}
			once, err := wire.Append(nil, 1, wire.OpReply, m)
			if err != nil {
				t.Fatal(err)
			}
			again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(wire.Message)
			if err := wire.Decode(once[9:], again); err != nil {
				t.Fatalf("%T: what was written cannot be read: %v", m, err)
			}
			if twice, _ := wire.Append(nil, 1, wire.OpReply, again); !bytes.Equal(once, twice) {
				t.Fatalf("%T changes: %x, %x", m, once, twice)
			}
		}
	})
}

// FuzzReader: whatever comes in whatever pieces, the reader gives frames or an
// error, and takes no more memory than has come.
func FuzzReader(f *testing.F) {
	b, _ := wire.Append(nil, 1, wire.OpTokens, nil)
	b, _ = wire.Append(b, 2, wire.OpSign, &wire.Sign{Data: make([]byte, 5000)})
	f.Add(b, byte(3))
	f.Add([]byte{0x00, 0x7f, 0xff, 0xff, 0, 0, 0, 1, 1}, byte(1))
	f.Fuzz(func(t *testing.T, stream []byte, step byte) {
		whole := collect(t, bytes.NewReader(stream))
		pieces := collect(t, &slowly{bytes.NewReader(stream), int(step)%64 + 1})
		if !reflect.DeepEqual(whole, pieces) {
			t.Fatalf("%d frames whole, %d in pieces", len(whole), len(pieces))
		}
	})
}

func collect(t *testing.T, in io.Reader) []wire.Frame {
	r := wire.Reader{R: in}
	var all []wire.Frame
	for {
		f, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, wire.ErrFrame) {
				t.Fatal(err)
			}
			return all
		}
		f.Body = bytes.Clone(f.Body)
		all = append(all, f)
	}
}

type slowly struct {
	r io.Reader
	n int
}

func (s *slowly) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }
