package metadata

import (
	"encoding/json"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ready is a station whose role has credentials.
func ready(t *testing.T, o RoleOptions) *station {
	t.Helper()
	if o.Fetch == nil {
		o.Fetch = static
	}
	s := newStation(t, o)
	failures := 0
	s.role.attempt(t.Context(), &failures)
	return s
}

func TestIMDS(t *testing.T) {
	s := ready(t, RoleOptions{})
	w := s.ask("PUT", pathToken, headerTokenTTL, "300")
	if w.Code != 200 || w.Header().Get(headerTokenTTL) != "300" || w.Header().Get("Content-Type") != "text/plain" || !regexp.MustCompile(`^[A-Za-z0-9_-]{64}$`).MatchString(w.Body.String()) {
		t.Errorf("%d %v %q", w.Code, w.Header(), w.Body)
	}
	token := w.Body.String()
	for _, path := range []string{pathCredentials, pathCredentials + "/"} {
		if w := s.ask("GET", path, headerToken, token); w.Code != 200 || w.Body.String() != "edge" || w.Header().Get("Content-Type") != "text/plain" {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
	w = s.ask("GET", pathCredentials+"/edge", headerToken, token)
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("%d %v", w.Code, err)
	}
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	for _, name := range []string{"LastUpdated", "Expiration"} {
		if text, _ := doc[name].(string); !stamp.MatchString(text) {
			t.Errorf("%s %v", name, doc[name])
		}
		delete(doc, name)
	}
	want := map[string]any{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIASTATIC", "SecretAccessKey": "static/secret", "Token": "static+token"}
	if len(doc) != len(want) {
		t.Errorf("fields %v", doc)
	}
	for k, v := range want {
		if doc[k] != v {
			t.Errorf("%s is %v", k, doc[k])
		}
	}
	for path, code := range map[string]int{
		pathCredentials + "/other":                          404,
		pathCredentials + "/edge/":                          404,
		pathCredentials + "x":                               404,
		"/latest/meta-data/":                                404,
		"/latest/dynamic/instance-identity/document":        404,
		"/latest/meta-data/iam/security-credentials/%65dge": 404,
	} {
		if w := s.ask("GET", path, headerToken, token); w.Code != code {
			t.Errorf("%s: %d, want %d", path, w.Code, code)
		}
	}
	if w := s.ask("HEAD", pathCredentials+"/edge", headerToken, token); w.Code != 200 {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
		if w := s.ask(method, pathCredentials+"/edge", headerToken, token); w.Code != 405 {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if w := s.ask("GET", pathToken); w.Code != 405 {
		t.Errorf("GET token: %d", w.Code)
	}
}

func TestTokenTTL(t *testing.T) {
	s := ready(t, RoleOptions{})
	for ttl, code := range map[string]int{"1": 200, "21600": 200, "0": 400, "21601": 400, "-1": 400, "+5": 400, "": 400, "x": 400, "1.5": 400, " 5": 400, "99999999999999999999": 400, "0x10": 400, "1_0": 400} {
		w := s.ask("PUT", pathToken, headerTokenTTL, ttl)
		if w.Code != code || code == 200 && w.Header().Get(headerTokenTTL) != ttl {
			t.Errorf("%q: %d %v", ttl, w.Code, w.Header())
		}
	}
	if w := s.ask("PUT", pathToken); w.Code != 400 {
		t.Errorf("no header: %d", w.Code)
	}
	if w := s.ask("PUT", pathToken, headerTokenTTL, "5", headerTokenTTL, "6"); w.Code != 400 {
		t.Errorf("two headers: %d", w.Code)
	}
}

// SDKs take 403, 404 and 405 on the PUT for "there is no IMDSv2".
func TestPutTokenNeverSaysThereIsNone(t *testing.T) {
	s := ready(t, RoleOptions{AllowUIDs: []uint32{4242}})
	free := ready(t, RoleOptions{})
	for name, w := range map[string]interface{ Result() *http.Response }{
		"uid":       s.ask("PUT", pathToken, headerTokenTTL, "60"),
		"forwarded": free.ask("PUT", pathToken, headerTokenTTL, "60", "X-Forwarded-For", "10.0.0.1"),
		"origin":    free.ask("PUT", pathToken, headerTokenTTL, "60", "Origin", "http://evil.example"),
		"ttl":       free.ask("PUT", pathToken),
	} {
		if code := w.Result().StatusCode; code != 400 {
			t.Errorf("%s: %d", name, code)
		}
	}
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ready(t, RoleOptions{})
		code := func(token ...string) int {
			var header []string
			for _, text := range token {
				header = append(header, headerToken, text)
			}
			return s.ask("GET", pathCredentials+"/", header...).Code
		}
		token := s.ask("PUT", pathToken, headerTokenTTL, "60").Body.String()
		if code(token) != 200 {
			t.Error("a good token is refused")
		}
		changed := []byte(token)
		changed[0] ^= 1 // its end
		for name, bad := range map[string]string{"changed": string(changed), "short": token[1:], "long": token + "A", "empty": "", "odd": strings.Repeat("!", 64),
			"another server's": ready(t, RoleOptions{}).token()} {
			if c := code(bad); c != 401 {
				t.Errorf("%s: %d", name, c)
			}
		}
		if c := code(); c != 401 {
			t.Errorf("none: %d", c)
		}
		if c := code(token, token); c != 401 {
			t.Errorf("two: %d", c)
		}
		time.Sleep(59 * time.Second)
		if c := code(token); c != 200 {
			t.Errorf("after 59 s: %d", c)
		}
		time.Sleep(time.Second)
		if c := code(token); c != 401 {
			t.Errorf("after 60 s: %d", c)
		}
	})
}

func TestTokenOfAConnectionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ready(t, RoleOptions{})
		x := exchange{s: s.Server, c: s.conn, now: time.Now()}
		token := s.ask("PUT", pathToken, headerTokenTTL, "60").Body.String()
		for range 2 {
			if !x.validToken(token) || x.validToken(token+"x") {
				t.Error("wrong verdict")
			}
		}
		x.now = x.now.Add(time.Minute)
		if x.validToken(token) {
			t.Error("a connection outlives its token")
		}
	})
}

func TestManyTokensTakeNoMemory(t *testing.T) {
	s := ready(t, RoleOptions{})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s.token()
	before := heap()
	var last string
	for range 100_000 {
		last = s.ask("PUT", pathToken, headerTokenTTL, "21600").Body.String()
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("100,000 tokens took %d bytes", after-before)
	}
	if w := s.ask("GET", pathCredentials+"/", headerToken, last); w.Code != 200 {
		t.Errorf("%d", w.Code)
	}
}

func TestContainer(t *testing.T) {
	s := ready(t, RoleOptions{})
	w := s.ask("GET", "/role/edge")
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %v", w.Code, w.Header(), err)
	}
	if len(doc) != 5 || doc["AccessKeyId"] != "ASIASTATIC" || doc["SecretAccessKey"] != "static/secret" || doc["Token"] != "static+token" || doc["AccountId"] != "123456789012" || doc["Expiration"] == "" {
		t.Errorf("%v", doc)
	}
	for _, path := range []string{"/role/", "/role/other", "/role/edge/", "/role/edge/../edge", "/role/%65dge", "/role/EDGE"} {
		w := s.ask("GET", path)
		var e struct{ Code, Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != 404 || e.Code == "" || e.Message == "" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := s.ask("HEAD", "/role/edge"); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
	if w := s.ask("GET", "/role"); w.Code != 404 {
		t.Errorf("/role: %d", w.Code)
	}
}

func TestWhichRoleIMDSShows(t *testing.T) {
	s := ready(t, RoleOptions{Name: "one"})
	two, err := NewRole(RoleOptions{Name: "two", Fetch: static})
	check(t, err)
	token := s.token()
	listing := func() (int, string) {
		w := s.ask("GET", pathCredentials+"/", headerToken, token)
		return w.Code, w.Body.String()
	}
	s.SetRoles([]*Role{s.role, two})
	if code, _ := listing(); code != 404 {
		t.Errorf("two roles, none named: %d", code)
	}
	other, err := NewRole(RoleOptions{Name: "two", Fetch: static, AllowUIDs: []uint32{4242}})
	check(t, err)
	s.SetRoles([]*Role{s.role, other})
	if code, text := listing(); code != 200 || text != "one" {
		t.Errorf("of two roles one is for somebody else: %d %s", code, text)
	}
	s.SetRoles(nil)
	if code, _ := listing(); code != 404 {
		t.Errorf("no role: %d", code)
	}
}
