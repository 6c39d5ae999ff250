package tpm_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// An authPolicy that is replaced leaves every other byte of the key and of the
// file as it was: also the description, which holdfast does not write, and fields
// it does not know.
func TestReplaceAuthPolicy(t *testing.T) {
	_, d := start(t)
	f := boundTo(t, d, tpm.CreateOptions{})
	bare, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	auth := func(name string) []byte {
		p := &policy.Policy{Hash: f.Public.NameAlg, Alternatives: []policy.Alternative{{Name: name, Steps: []policy.Step{policy.AuthValue{}}}}}
		_, b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one, two := auth("one"), auth("a second one, of another length")
	for name, key := range map[string][]byte{
		"bare":          bare,
		"description":   with(bare, 4, 12, 2, 'h', 'i'),
		"unknown field": with(bare, 7, 2, 1, 5),
	} {
		t.Run(name, func(t *testing.T) {
			first := replaceAuth(t, key, one)
			if got := parseKey(t, first).AuthPolicy; !bytes.Equal(got, one) {
				t.Errorf("authPolicy %x", got)
			}
			second := replaceAuth(t, first, two)
			if got := parseKey(t, second); !bytes.Equal(got.AuthPolicy, two) || got.Description != parseKey(t, key).Description {
				t.Errorf("authPolicy %x, description %q", got.AuthPolicy, got.Description)
			}
			if got := replaceAuth(t, second, nil); !bytes.Equal(got, key) {
				t.Errorf("%x, from %x", got, key)
			}

			const before, after = "a comment\r\n-----BEGIN X-----\nAAAA\n-----END X-----\n", "\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\nthe end"
			text := before + string(pem.EncodeToMemory(&pem.Block{Type: tpm.PEMType, Bytes: key})) + after
			got := string(replaceAuth(t, []byte(text), one))
			if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) || got == text {
				t.Errorf("in PEM: %s", got)
			}
			if back := string(replaceAuth(t, []byte(got), nil)); back != text {
				t.Errorf("in PEM and back: %s", back)
			}
		})
	}
	for _, bad := range [][]byte{nil, []byte("x"), bare[:len(bare)-1], []byte("-----BEGIN TSS2 PRIVATE KEY-----\nAAAA\n-----END TSS2 PRIVATE KEY-----\n")} {
		if _, err := tpm.ReplaceAuthPolicy(bad, one); !errors.Is(err, signer.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := tpm.ReplaceAuthPolicy(bare, []byte{1, 2, 3}); err == nil {
		t.Error("an authPolicy that is no sequence")
	}
}

func replaceAuth(t *testing.T, text, auth []byte) []byte {
	t.Helper()
	out, err := tpm.ReplaceAuthPolicy(text, auth)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parseKey(t *testing.T, der []byte) *tpm.KeyFile {
	t.Helper()
	f, err := tpm.ParseKeyFile(der)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
