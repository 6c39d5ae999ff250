package enroll_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/holdfast-iam/holdfast/signer/enroll"
)

func TestParseSubject(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // what openssl prints of a request with it, RFC 2253 form
	}{
		{"CN=device-1,OU=edge,O=Acme", "CN=device-1,OU=edge,O=Acme"},
		{"/O=Acme/OU=edge/CN=device-1", "CN=device-1,OU=edge,O=Acme"},
		{"  cn = device-1 , o = Acme  ", "CN=device-1,O=Acme"},
		{"CN=device-1", "CN=device-1"},
		{"/CN=device-1", "CN=device-1"},
		{`CN=Acme\, Inc`, `CN=Acme\, Inc`},
		{`CN=a\2Cb\5Cc`, `CN=a\,b\\c`},
		{`CN=caf\C3\A9,O=é`, `CN=caf\C3\A9,O=\C3\A9`},
		{`CN=x\+y`, `CN=x\+y`},
		{`/CN=a\/b,c`, `CN=a/b\,c`},
		{`CN=a/b`, `CN=a/b`},
		{`CN=\ x\ ,O=y`, `CN=\ x\ ,O=y`},
		{`CN=\#x`, `CN=\#x`},
		{`CN=#0c0161`, `CN=a`},
		{"CN=a=b", "CN=a=b"},
		{"O=Acme,CN=odd order", "O=Acme,CN=odd order"},
		{"CN=x,OU=a,OU=b", "CN=x,OU=a,OU=b"},
		{"CN=x,DC=acme,DC=example", "CN=x,DC=acme,DC=example"},
		{"emailAddress=a@example,CN=x", "emailAddress=a@example,CN=x"},
		{"UID=7,CN=x", "UID=7,CN=x"},
		{"2.5.4.3=x,OID.2.5.4.10=y", "CN=x,O=y"},
		{"C=DE,ST=Berlin,L=Mitte,serialNumber=1", "C=DE,ST=Berlin,L=Mitte,serialNumber=1"},
	} {
		name, err := enroll.ParseSubject(c.in)
		if err != nil {
			t.Error(err)
			continue
		}
		der, err := enroll.NewRequest(newKey(t, "P-256"), enroll.RequestOptions{Subject: name})
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		file := write(t, t.TempDir(), "csr.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
		got := strings.TrimSpace(openssl(t, "req", "-noout", "-subject", "-nameopt", "RFC2253", "-in", file))
		if got != "subject="+c.want {
			t.Errorf("%s: openssl reads %s, want %s", c.in, got, c.want)
		}
	}
}

func TestParseSubjectFillsFields(t *testing.T) {
	name, err := enroll.ParseSubject("CN=device-1,OU=edge,O=Acme")
	if err != nil {
		t.Fatal(err)
	}
	if name.CommonName != "device-1" || name.OrganizationalUnit[0] != "edge" || name.Organization[0] != "Acme" || name.ExtraNames != nil {
		t.Errorf("got %#v", name)
	}
}

func TestParseSubjectErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":              "empty",
		"/":             "TYPE=VALUE",
		"device-1":      `"device-1" is not TYPE=VALUE`,
		"CN=":           "CN has no value",
		"CN=a,":         `"" is not TYPE=VALUE`,
		"CN=a,,O=b":     "TYPE=VALUE",
		"=x":            "TYPE=VALUE",
		"XX=a":          `unknown attribute type "XX"`,
		"1.=a":          "no object identifier",
		"9.9.9=a":       "no object identifier",
		`CN=a\`:         "ends in a backslash",
		`CN=a\q`:        "is no escape",
		`CN=\FF`:        "not UTF-8",
		"CN=\xff":       "not UTF-8",
		"CN=a+O=b":      "not supported",
		`CN="a"`:        "needs a backslash",
		"CN=#zz":        "not the hex encoding",
		"CN=#020101":    "not the hex encoding",
		"CN=a;O=b":      "needs a backslash",
		"DC=é":          "ASCII only",
		"/CN=a/device1": "TYPE=VALUE",
	} {
		_, err := enroll.ParseSubject(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}

func FuzzParseSubject(f *testing.F) {
	f.Add("CN=device-1,OU=edge,O=Acme")
	f.Add(`/O=A\/B/CN=x`)
	f.Add(`CN=#0c0161,DC=a,2.5.4.3=\2C`)
	f.Fuzz(func(t *testing.T, s string) {
		name, err := enroll.ParseSubject(s)
		if err == nil && len(name.ToRDNSequence()) == 0 {
			t.Errorf("%q: no error and no name", s)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	der, err := enroll.NewRequest(p256(f), enroll.RequestOptions{Subject: pkix.Name{CommonName: "x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	f.Fuzz(func(t *testing.T, data []byte) {
		csr, err := enroll.ParseRequest(data)
		if err == nil && csr.Raw == nil {
			t.Error("no error and no request")
		}
	})
}

func p256(f *testing.F) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	return key
}
