package serveconfig

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	text := "\ufeff# a comment\n\n[defaults]\r\ncertificate = /etc/a b.crt\n; another\n  [ role   edge ]\nrole-arn=arn:aws:iam::1:role/a=b # no comment\n[listen unix:/run/x y]\n"
	got, err := Parse("serve.conf", []byte(text))
	want := []Section{
		{Defaults, "", 3, []Entry{{"certificate", "/etc/a b.crt", 4}}},
		{Role, "edge", 6, []Entry{{"role-arn", "arn:aws:iam::1:role/a=b # no comment", 7}}},
		{Listen, "unix:/run/x y", 8, nil},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"key = value":                     "f:1: key is before the first section",
		"[defaults]\nkey":                 "f:2: neither a section nor key = value",
		"[defaults]\n= value":             "f:2: neither",
		"[defaults]\nkey =":               "f:2: key has no value",
		"[defaults]\na = 1\n\na = 2":      "f:4: a is there already, on line 2",
		"[defaults":                       "f:1: ",
		"[profile x]":                     "f:1: section [profile x] is none of",
		"[role]":                          "f:1: section [role] needs a name",
		"[defaults x]":                    "f:1: section [defaults] has no name",
		"[role a]\n[role b]\n[role a]":    "f:3: section [role a] is there already, on line 1",
		"[role a]\nrole-arn = \xff\xfe":   "f:2: not UTF-8",
		"[defaults]\n[listen x]\n[]\n":    "f:3: section []",
		"[defaults]\nkey = a\n[defaults]": "f:3: section [defaults] is there already, on line 1",
	} {
		_, err := Parse("f", []byte(text))
		var e *Error
		if err == nil || !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %s…", text, err, want)
		}
	}
}

func TestReadBoundsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(path, []byte("[defaults]\nkey = "+strings.Repeat("x", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error %v", err)
	}
	if _, err := Read(path + "?"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[defaults]\na = b\n[role x]\n[listen 127.0.0.1:1]\nmode = 0600\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		sections, err := Parse("f", text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 {
				t.Fatalf("error without a line: %v", err)
			}
			return
		}
		for _, s := range sections {
			if s.Line < 1 || (s.Name == "") != (s.Kind == Defaults) {
				t.Fatalf("%+v", s)
			}
			for _, e := range s.Entries {
				if e.Key == "" || e.Value == "" || e.Line <= s.Line {
					t.Fatalf("%+v", e)
				}
			}
		}
	})
}
