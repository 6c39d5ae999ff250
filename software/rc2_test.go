package software

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// RFC 2268, section 5, those vectors whose effective key length is the key's.
func TestRC2(t *testing.T) {
	for _, test := range []struct{ key, plain, cipher string }{
		{"ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"},
		{"3000000000000000", "1000000000000001", "30649edf9be7d2c2"},
		{"88bca90e90875a7f0f79c384627bafb2", "0000000000000000", "2269552ab0f85ca6"},
	} {
		key, plain, ciphertext := unhex(t, test.key), unhex(t, test.plain), unhex(t, test.cipher)
		got := make([]byte, 8)
		newRC2(key).Decrypt(got, ciphertext)
		if !bytes.Equal(got, plain) {
			t.Errorf("key %s: %x", test.key, got)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBER(t *testing.T) {
	for _, test := range []struct{ in, out string }{
		{"3080020105" + "0000", "3003020105"},
		{"2480" + "040161" + "2480" + "040162" + "0000" + "0000", "04026162"},
		{"30820003" + "020105", "3003020105"},
		{"040161", "040161"},
		{"3080020105", ""},          // no end
		{"0480040161" + "0000", ""}, // a primitive of indefinite length
		{"24030201ff", ""},          // an INTEGER within an OCTET STRING
		{"30", ""}, {"3081", ""}, {"1f8101", ""}, {"30ff", ""},
	} {
		out, rest, ok := berToDER(unhex(t, test.in))
		if ok != (test.out != "") || hex.EncodeToString(out) != test.out || len(rest) != 0 {
			t.Errorf("%s: %x, rest %x, %v", test.in, out, rest, ok)
		}
	}
	if _, _, ok := berToDER(bytes.Repeat([]byte{0x30, 0x80}, 1<<19)); ok {
		t.Error("nesting without end")
	}
}
