package awsfiles

import (
	"bytes"
	"strings"
	"testing"
)

func set(key, value string) Setting { return Setting{Key: key, Value: value} }

func TestSet(t *testing.T) {
	for name, c := range map[string]struct{ before, profile, after string }{
		"an empty file":   {"", "p", "[p]\nk = new\nt = tok\n"},
		"a new profile":   {"# mine\n[a]\nk = 1\n", "p", "# mine\n[a]\nk = 1\n\n[p]\nk = new\nt = tok\n"},
		"no last newline": {"[a]\nk = 1", "p", "[a]\nk = 1\n\n[p]\nk = new\nt = tok\n"},
		"a blank line at the end": {"[a]\r\nk = 1\r\n\r\n", "p",
			"[a]\r\nk = 1\r\n\r\n[p]\r\nk = new\r\nt = tok\r\n"},
		"between others": {"[a]\nk = 1\n\n; of p\n[p]\nregion = x\nk=old\nother: y\nt : z\n\n# of b\n[b]\nk = 2\n", "p",
			"[a]\nk = 1\n\n; of p\n[p]\nregion = x\nk=new\nother: y\nt : tok\n\n# of b\n[b]\nk = 2\n"},
		"keys missing":  {"[p]\nregion = x\n\n# of b\n[b]\n", "p", "[p]\nregion = x\nk = new\nt = tok\n\n# of b\n[b]\n"},
		"a bare header": {"[p]", "p", "[p]\nk = new\nt = tok\n"},
		"a byte order mark and CRLF": {"\ufeff[p]\r\nk = old\r\nx = y", "p",
			"\ufeff[p]\r\nk = new\r\nx = y\r\nt = tok\r\n"},
		"a nested section of that key": {"[p]\ns3 =\n  k = nested\n\tt = nested\nk = old\n  going on\n# kept\n  and on\nx = y\n", "p",
			"[p]\ns3 =\n  k = nested\n\tt = nested\nk = new\n# kept\nx = y\nt = tok\n"},
		"all indented":                {"[p]\n  k = old\n  x = y\n[b]\n", "p", "[p]\n  k = new\n  x = y\n  t = tok\n[b]\n"},
		"twice":                       {"[p]\nk = first\n[a]\n[p]\nk = one\nK = two\n", "p", "[p]\nk = first\n[a]\n[p]\nk = new\nt = tok\n"},
		"upper case":                  {"[p]\nK = old\n[P]\nk = other\n", "p", "[p]\nK = new\nt = tok\n[P]\nk = other\n"},
		"an old comment in the value": {"[ p ] ; mine\nk = old ; why\n", "p", "[ p ] ; mine\nk = new\nt = tok\n"},
		"the same name elsewhere":     {"# [p]\n[profile p]\nk = a\nv = [p]\n", "p", "# [p]\n[profile p]\nk = a\nv = [p]\n\n[p]\nk = new\nt = tok\n"},
		"a legacy key":                {"[p]\nlegacy = old\n", "p", "[p]\nlegacy = tok\nk = new\nt = tok\n"},
		"rubbish":                     {"\x00\xff garbage\n]]\n[p\n[p]\n=\nk\n", "p", "\x00\xff garbage\n]]\n[p\n[p]\n=\nk\nk = new\nt = tok\n"},
	} {
		got, err := Set([]byte(c.before), c.profile, []Setting{set("k", "new"), set("t", "tok"), {Key: "legacy", Value: "tok", IfPresent: true}})
		if err != nil || string(got) != c.after {
			t.Errorf("%s:\n%q, want\n%q; %v", name, got, c.after, err)
		}
		again, err := Set(got, c.profile, []Setting{set("k", "new"), set("t", "tok"), {Key: "legacy", Value: "tok", IfPresent: true}})
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: not the same again: %q", name, again)
		}
	}
	for _, name := range []string{"", " p", "p ", "a]b", "a\nb"} {
		if _, err := Set(nil, name, nil); err == nil {
			t.Errorf("a profile %q", name)
		}
	}
	if _, err := Set(nil, "p", []Setting{set("k", "a\nb = c")}); err == nil || strings.Contains(err.Error(), "b = c") {
		t.Error("a value of two lines:", err)
	}
}

// Whatever the file holds, setting is idempotent and leaves the lines before
// the profile's section and after it as they were.
func FuzzSet(f *testing.F) {
	f.Add([]byte("# c\r\n[a]\r\nk = v\r\n  more\r\n\r\n[p]\r\nk: old\r\ns3 =\r\n  k = nested\r\n[b]\r\nk=1"))
	f.Add([]byte("\ufeff[p]\n k = v\n\t k = w\n[p]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		settings := []Setting{set("k", "new"), set("token", "tok")}
		once, err := Set(text, "p", settings)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := Set(once, "p", settings)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q and then %q, %v", text, once, twice, err)
		}
		lines := splitLines(text)
		s := findSection(lines, "p")
		if s == nil {
			if !bytes.HasPrefix(once, text) {
				t.Fatalf("appending changed %q to %q", text, once)
			}
			return
		}
		var before, after []byte
		for i, l := range lines {
			if i < s.header {
				before = append(before, l.body+l.eol...)
			}
			if i > s.last {
				after = append(after, l.body+l.eol...)
			}
		}
		if !bytes.HasPrefix(once, before) || !bytes.HasSuffix(once, after) {
			t.Fatalf("%q became %q", text, once)
		}
	})
}
