package tpm_test

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

// A tlv is a DER element.
type tlv struct {
	tag  der.Tag
	body []byte
}

// edit takes a key file apart and puts it together again.
func edit(data []byte, change func([]tlv) []tlv) []byte {
	in := cryptobyte.String(data)
	var seq cryptobyte.String
	in.ReadASN1(&seq, der.SEQUENCE)
	var all []tlv
	for !seq.Empty() {
		var body cryptobyte.String
		var tag der.Tag
		seq.ReadAnyASN1(&body, &tag)
		all = append(all, tlv{tag, body})
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, e := range change(all) {
			b.AddASN1(e.tag, func(b *cryptobyte.Builder) { b.AddBytes(e.body) })
		}
	})
	return b.BytesOrPanic()
}

func ctxTag(n uint8) der.Tag { return der.Tag(n).ContextSpecific().Constructed() }

// with inserts a field before the parent.
func with(data []byte, tag uint8, body ...byte) []byte {
	return edit(data, func(all []tlv) []tlv {
		n := len(all) - 3
		return append(append(append([]tlv(nil), all[:n]...), tlv{ctxTag(tag), body}), all[n:]...)
	})
}

func without(data []byte, tag uint8) []byte {
	return edit(data, func(all []tlv) []tlv {
		var kept []tlv
		for _, e := range all {
			if e.tag != ctxTag(tag) {
				kept = append(kept, e)
			}
		}
		return kept
	})
}

func parent(data []byte, b ...byte) []byte {
	return edit(data, func(all []tlv) []tlv {
		all[len(all)-3].body = b
		return all
	})
}

var dialects = map[string]func([]byte) []byte{
	"as written":        bytes.Clone,
	"TRUE is 1":         func(b []byte) []byte { return with(without(b, 0), 0, 1, 1, 1) },
	"no emptyAuth":      func(b []byte) []byte { return without(b, 0) },
	"FALSE, yet empty":  func(b []byte) []byte { return with(without(b, 0), 0, 1, 1, 0) },
	"description":       func(b []byte) []byte { return with(b, 4, 12, 2, 'h', 'i') },
	"rsaParent FALSE":   func(b []byte) []byte { return with(b, 5, 1, 1, 0) },
	"unknown tag":       func(b []byte) []byte { return with(b, 9, 4, 1, 7) },
	"parent 0":          func(b []byte) []byte { return parent(b, 0) },
	"long parent":       func(b []byte) []byte { return parent(b, 0, 0x40, 0, 0, 1) },
	"newline after DER": func(b []byte) []byte { return append(bytes.Clone(b), '\n') },
}

func fixture(t testing.TB) []byte {
	t.Helper()
	data, err := readKeyFile(t, "../testdata/tpm/openssl-p256.pem").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParentHandles(t *testing.T) {
	data := fixture(t)
	for _, c := range []struct {
		parent []byte
		want   uint32
	}{
		{[]byte{0}, 0x40000001},
		{[]byte{0x40, 0, 0, 0x0b}, 0x4000000b},
		{[]byte{0x81, 0, 0, 1}, 0x81000001},
		{[]byte{0, 0x81, 0, 0, 1}, 0x81000001},
		{[]byte{0xff, 0x81, 0, 0, 1}, 0x81000001},
		{[]byte{0xff, 0xff, 0xff, 0xff, 0x81, 0, 0, 1}, 0x81000001},
	} {
		f, err := tpm.ParseKeyFile(parent(data, c.parent...))
		if err != nil {
			t.Errorf("% x: %v", c.parent, err)
			continue
		}
		if uint32(f.Parent) != c.want {
			t.Errorf("% x: %#x", c.parent, f.Parent)
		}
		if again := reparse(t, f); again.Parent != f.Parent {
			t.Errorf("% x: written and read, %#x", c.parent, again.Parent)
		}
	}
}

func TestRefusals(t *testing.T) {
	data := fixture(t)
	setOID := func(last byte) []byte {
		return edit(data, func(all []tlv) []tlv {
			all[0].body = []byte{0x67, 0x81, 5, 10, 1, last}
			return all
		})
	}
	for name, c := range map[string]struct {
		data []byte
		is   error
		says string
	}{
		"empty":            {nil, signer.ErrMalformed, "not a TPM key"},
		"another PEM":      {[]byte("-----BEGIN X-----\nAAAA\n-----END X-----\n"), signer.ErrMalformed, "another type"},
		"old engine":       {[]byte("-----BEGIN TSS2 KEY BLOB-----\nAAAA\n-----END TSS2 KEY BLOB-----\n"), signer.ErrUnsupportedKey, "before the standard"},
		"sealed":           {setOID(5), signer.ErrUnsupportedKey, "sealed"},
		"another OID":      {setOID(9), signer.ErrUnsupportedKey, "2.23.133.10.1.9"},
		"no secret":        {setOID(4), signer.ErrMalformed, "secret"},
		"cut short":        {data[:len(data)-1], signer.ErrMalformed, ""},
		"more after it":    {append(bytes.Clone(data), 1), signer.ErrMalformed, "too many"},
		"transient parent": {parent(data, 0, 0x80, 0, 0, 1), signer.ErrMalformed, "parent"},
		"long parent":      {parent(data, 1, 0x81, 0, 0, 1), signer.ErrMalformed, "parent"},
		"bool of 2 bytes":  {with(without(data, 0), 0, 1, 2, 0, 0), signer.ErrMalformed, "[0]"},
		"twice":            {with(data, 0, 1, 1, 0), signer.ErrMalformed, "twice"},
		"public":           {edit(data, func(all []tlv) []tlv { all[len(all)-2].body[20] ^= 1; return all }), nil, ""},
	} {
		_, err := tpm.ParseKeyFile(c.data)
		switch {
		case err == nil:
			t.Errorf("%s: read", name)
		case c.is != nil && !errors.Is(err, c.is), !strings.Contains(err.Error(), c.says), strings.ContainsAny(err.Error(), "\n\r"):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A policy is never ignored: one that is not understood is refused.
func TestUnknownPolicy(t *testing.T) {
	step, err := asn1.Marshal([]struct {
		Code int    `asn1:"explicit,tag:0"`
		Body []byte `asn1:"explicit,tag:1"`
	}{{0x149, []byte{1}}}) // PolicyNV
	if err != nil {
		t.Fatal(err)
	}
	data := fixture(t)
	f, err := tpm.ParseKeyFile(with(data, 1, step...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.OpenKey(testContext(t), tpm.New(nil, "none"), f, tpm.Options{}); err == nil || !strings.Contains(err.Error(), "PolicyNV") {
		t.Errorf("a key with PolicyNV: %v", err)
	}
}

func FuzzParseKeyFile(f *testing.F) {
	data := fixture(f)
	for _, change := range dialects {
		f.Add(change(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := tpm.ParseKeyFile(data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		empty := true
		k.EmptyAuth = &empty
		again := reparse(t, k)
		if !bytes.Equal(again.Private, k.Private) || again.Parent != k.Parent || !bytes.Equal(again.Name().Buffer, k.Name().Buffer) {
			t.Error("written and read, it is another key")
		}
	})
}
