package main

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseSelector(t *testing.T) {
	file := filepath.Join(t.TempDir(), "selector.json")
	if err := os.WriteFile(file, []byte(`[{"Key":"x509Subject","Value":"CN=Subject"},{"Key":"x509Serial","Value":"15D1"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]selector{
		"Key=x509Subject,Value=CN=Subject":                                     {subject: "CN=Subject"},
		"Key=x509Subject,Value=CN=A B,O=C, Inc. Key=x509Issuer,Value=CN=Root ": {subject: "CN=A B,O=C, Inc.", issuer: "CN=Root"},
		"Key=x509Serial,Value=15d1":                                            {serial: big.NewInt(0x15d1)},
		"file://" + file:                                                       {subject: "CN=Subject", serial: big.NewInt(0x15d1)},
	} {
		got, err := parseSelector(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		sameSerial := got.serial == want.serial || got.serial != nil && want.serial != nil && got.serial.Cmp(want.serial) == 0
		if got.subject != want.subject || got.issuer != want.issuer || !sameSerial {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	for _, text := range []string{
		"", "x509Subject=CN", "Key=x509Subject", "Key=x509Subject,CN=x", "Key=x509Sub,Value=x", "Key=x509Serial,Value=xyz",
		"Key=x509Serial,Value=+1", "Key=x509Serial,Value=-1", "Key=x509Subject,Value=a Key=x509Subject,Value=b", "file:///nowhere",
	} {
		if got, err := parseSelector(text); err == nil {
			t.Errorf("%q was taken for %+v", text, got)
		}
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add("Key=x509Subject,Value=CN=Subject Key=x509Issuer,Value=CN=A, B Key=x509Serial,Value=15D19632")
	f.Add(`[{"Key":"x509Subject","Value":"CN=Subject"}]`)
	f.Add("Key= Key=,Value=,Value= Key=")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseSelectorJSON([]byte(text)); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of more than one line: %q", err)
		}
		if strings.HasPrefix(text, "file://") {
			return // reads files
		}
		s, err := parseSelector(text)
		if err != nil {
			return
		}
		// What is selected can be written down again and means the same.
		var again []string
		if s.subject != "" {
			again = append(again, "Key=x509Subject,Value="+s.subject)
		}
		if s.issuer != "" {
			again = append(again, "Key=x509Issuer,Value="+s.issuer)
		}
		if s.serial != nil {
			again = append(again, "Key=x509Serial,Value="+s.serial.Text(16))
		}
		if len(again) == 0 {
			return
		}
		r, err := parseSelector(strings.Join(again, " "))
		if err != nil || r.subject != s.subject || r.issuer != s.issuer {
			t.Errorf("%q: %+v became %+v, %v", text, s, r, err)
		}
	})
}
