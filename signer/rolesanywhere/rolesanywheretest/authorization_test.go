package rolesanywheretest

import (
	"encoding/hex"
	"strings"
	"testing"
)

const goodAuthorization = "AWS4-X509-MLDSA Credential=21/20240706/us-east-2/rolesanywhere/aws4_request, SignedHeaders=host;x-amz-date;x-amz-x509, Signature=00ff"

func TestParseAuthorization(t *testing.T) {
	t.Parallel()
	a, err := parseAuthorization(goodAuthorization)
	if err != nil {
		t.Fatal(err)
	}
	if a.algorithm != algorithmMLDSA || a.serial != "21" || a.scope() != "20240706/us-east-2/rolesanywhere/aws4_request" ||
		strings.Join(a.signedHeaders, " ") != "host x-amz-date x-amz-x509" || hex.EncodeToString(a.signature) != "00ff" {
		t.Errorf("parsed %+v", a)
	}
	for _, edit := range []struct{ old, new string }{
		{"AWS4-X509-MLDSA ", ""},
		{"AWS4-X509-MLDSA", "aws4-x509-mldsa"},
		{"AWS4-X509-MLDSA", "AWS4-X509-ECDSA-SHA512"},
		{" Credential", "  Credential"},
		{", ", ","},
		{", ", ",  "},
		{"Credential=21", "Credential=-21"},
		{"Credential=21", "Credential=021"},
		{"Credential=21", "Credential="},
		{"Credential=21", "Credential=" + strings.Repeat("1", 101)},
		{"Credential=21", "Credential=٢"},
		{"20240706", "2024070"},
		{"us-east-2", ""},
		{"us-east-2", "US-EAST-2"},
		{"/rolesanywhere", ""},
		{"rolesanywhere", "sts"},
		{"aws4_request", "aws4_request/x"},
		{"host;", "host;;"},
		{"host;", ";host;"},
		{"host;", "host;host;"},
		{"host;x-amz-date", "x-amz-date;host"},
		{"host", "Host"},
		{"host", "ho st"},
		{"00ff", ""},
		{"00ff", "00f"},
		{"00ff", "00FF"},
		{"00ff", "00ff "},
		{"00ff", "00ff, Extra=1"},
		{"SignedHeaders", "Signature"},
	} {
		header := strings.Replace(goodAuthorization, edit.old, edit.new, 1)
		if a, err := parseAuthorization(header); err == nil {
			t.Errorf("%q passes as %+v", header, a)
		}
	}
}

// FuzzParseAuthorization checks that what passes has one spelling: written
// anew from what was parsed, it is the same.
func FuzzParseAuthorization(f *testing.F) {
	f.Add(goodAuthorization)
	f.Add(strings.Replace(goodAuthorization, "MLDSA", "RSA-SHA256", 1))
	f.Add(strings.Replace(goodAuthorization, "MLDSA", "ECDSA-SHA256", 1))
	f.Add(strings.Replace(goodAuthorization, "=21", "=0", 1))
	f.Add("")
	f.Add("AWS4-X509-MLDSA , , ")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		if err != nil {
			return
		}
		again := a.algorithm + " Credential=" + a.serial + "/" + a.scope() + ", SignedHeaders=" + strings.Join(a.signedHeaders, ";") +
			", Signature=" + hex.EncodeToString(a.signature)
		if again != header {
			t.Errorf("%q was read as %q", header, again)
		}
	})
}
