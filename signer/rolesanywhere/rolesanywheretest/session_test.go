package rolesanywheretest_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, kinds := range [][2]string{
		{"RSA-2048", "RSA-2048"}, {"P-256", "P-256"}, {"P-384", "P-384"}, {"P-521", "P-521"},
		{"ML-DSA-44", "ML-DSA-44"}, {"ML-DSA-65", "ML-DSA-65"}, {"ML-DSA-87", "ML-DSA-87"},
		{"ML-DSA-65", "P-256"}, {"RSA-2048", "ML-DSA-44"},
	} {
		t.Run(strings.Join(kinds[:], " issues "), func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, kinds[0], kinds[1])
			wantCreated(t, w, w.do(t, w.call()))
			if record := w.last(); record.Algorithm != w.leaf.algorithm || record.Serial != w.leaf.SerialNumber.String() {
				t.Errorf("recorded %s of %s", record.Algorithm, record.Serial)
			}
			c := w.call()
			c.sign = func(message []byte) []byte {
				signature := w.leaf.sign(message)
				signature[len(signature)-1] ^= 1
				return signature
			}
			if got := answerOf(w.do(t, c)); got != "403 AccessDeniedException: Invalid signature" {
				t.Errorf("a bent signature: %s", got)
			}
		})
	}
}

func TestSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.do(t, w.call())
	wantCreated(t, w, r)
	if len(r.Set) != 1 {
		t.Fatalf("%d credential sets", len(r.Set))
	}
	set := r.Set[0]
	session, ok := w.Session(set.Credentials.AccessKeyID)
	if !ok {
		t.Fatalf("no session %s", set.Credentials.AccessKeyID)
	}
	serial := fmt.Sprintf("%x", w.leaf.SerialNumber)
	for _, test := range []struct{ name, sent, kept, pattern string }{
		{"access key ID", set.Credentials.AccessKeyID, session.AccessKeyID, `ASIA[A-Z2-7]{16}`},
		{"secret", set.Credentials.SecretAccessKey, session.SecretAccessKey, `[A-Za-z0-9+/]{40}`},
		{"token", set.Credentials.SessionToken, session.SessionToken, `[A-Za-z0-9+/]{760}`},
		{"expiration", set.Credentials.Expiration, session.Expiration.Format(time.RFC3339), `2026-03-14T13:00:00Z`},
		{"assumed role", set.AssumedRoleUser.Arn, session.AssumedRoleARN, `arn:aws:sts::123456789012:assumed-role/press/` + serial},
		{"assumed role ID", set.AssumedRoleUser.AssumedRoleID, session.AssumedRoleID, `AROA[A-Z2-7]{17}:` + serial},
		{"role", set.RoleArn, session.RoleARN, `arn:aws:iam::123456789012:role/press`},
		{"source identity", set.SourceIdentity, session.SourceIdentity, `CN=press-7`},
		{"subject", r.SubjectArn, session.SubjectARN, `arn:aws:rolesanywhere:us-east-1:123456789012:subject/[0-9a-f-]{36}`},
		{"session name", serial, session.SessionName, `[0-9a-f]+`},
		{"profile", w.profile, session.ProfileARN, `arn:.*`},
		{"anchor", w.anchor, session.TrustAnchorARN, `arn:.*`},
		{"recorded key", w.last().AccessKeyID, session.AccessKeyID, `.+`},
	} {
		if test.sent != test.kept || !regexp.MustCompile("^"+test.pattern+"$").MatchString(test.sent) {
			t.Errorf("%s: sent %q, kept %q, want %s", test.name, test.sent, test.kept, test.pattern)
		}
	}
	if set.PackedPolicySize == nil {
		t.Error("no packedPolicySize")
	}
	again := w.do(t, w.call())
	wantCreated(t, w, again)
	if again.SubjectArn != r.SubjectArn || again.Set[0].Credentials.AccessKeyID == session.AccessKeyID {
		t.Errorf("a second session: subject %s, key %s", again.SubjectArn, again.Set[0].Credentials.AccessKeyID)
	}
	if _, ok := w.Session("ASIAUNKNOWN"); ok {
		t.Error("a session that was never issued")
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		body         string
		profile, max time.Duration
		least, want  time.Duration
	}{
		{"default", `{}`, 0, 0, 0, time.Hour},
		{"no body", ``, 0, 0, 0, time.Hour},
		{"null", `{"durationSeconds":null}`, 0, 0, 0, time.Hour},
		{"request", `{"durationSeconds":900}`, 0, 0, 0, 15 * time.Minute},
		{"profile is less", `{"durationSeconds":43200}`, 30 * time.Minute, 0, 0, 30 * time.Minute},
		{"longest", `{"durationSeconds":43200}`, 12 * time.Hour, 12 * time.Hour, 0, 12 * time.Hour},
		{"MinSession", `{"durationSeconds":1}`, 0, 0, time.Second, time.Second},
		{"MinSession rounded up", `{"durationSeconds":1}`, 0, 0, time.Millisecond, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.MinSession = test.least
			check(t, w.UpdateProfile(w.profile, func(p *rolesanywheretest.Profile) { p.Duration = test.profile }))
			check(t, w.UpdateRole(w.role, func(r *rolesanywheretest.Role) { r.MaxSessionDuration = test.max }))
			c := w.call()
			c.body = test.body
			r := w.do(t, c)
			wantCreated(t, w, r)
			if want := noon.Add(test.want).Format(time.RFC3339); r.Set[0].Credentials.Expiration != want {
				t.Errorf("expires %s, want %s", r.Set[0].Credentials.Expiration, want)
			}
		})
	}
}

func TestParametersInBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	check(t, w.UpdateProfile(w.profile, func(p *rolesanywheretest.Profile) { p.AcceptRoleSessionName = true }))
	c := w.call()
	c.params = nil
	c.body = fmt.Sprintf(`{"profileArn":%q,"roleArn":%q,"trustAnchorArn":%q,"roleSessionName":"me@home","sessionName":"old","instanceProperties":{"a":"b"},"durationSecond":1}`,
		w.profile, w.role, w.anchor)
	r := w.do(t, c)
	wantCreated(t, w, r)
	if want := "arn:aws:sts::123456789012:assumed-role/press/me@home"; r.Set[0].AssumedRoleUser.Arn != want {
		t.Errorf("assumed %s, want %s", r.Set[0].AssumedRoleUser.Arn, want)
	}
	if got := w.last().UnknownMembers; len(got) != 1 || got[0] != "durationSecond" {
		t.Errorf("unknown members %q", got)
	}
	c.params = [][2]string{{"roleArn", w.role}} // the same value twice is no conflict
	wantCreated(t, w, w.do(t, c))
}

func TestSourceIdentity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ cn, want string }{
		{strings.Repeat("a", 61), "CN=" + strings.Repeat("a", 61)},
		{strings.Repeat("a", 62), strings.Repeat("a", 62)},
		{strings.Repeat("a", 64), strings.Repeat("a", 64)},
		{strings.Repeat("a", 65), "ID=0abc"},
		{"with space", "ID=0abc"},
		{"", "ID=0abc"},
	} {
		w := newWorld(t)
		template := leafTemplate(test.cn)
		template.SerialNumber = big.NewInt(0xabc)
		r := w.do(t, w.callBy(issue(t, &w.ca, newKey(t, "P-256"), template)))
		wantCreated(t, w, r)
		if got := r.Set[0].SourceIdentity; got != test.want {
			t.Errorf("CN %q: source identity %q, want %q", test.cn, got, test.want)
		}
		if !strings.HasSuffix(r.Set[0].AssumedRoleUser.Arn, "/press/abc") {
			t.Errorf("session name in %s, want abc", r.Set[0].AssumedRoleUser.Arn)
		}
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	uri, err := url.Parse("spiffe://example.org/press")
	check(t, err)
	template := leafTemplate("press-7")
	template.Subject = pkix.Name{
		CommonName: "press-7", Organization: []string{"Example"}, OrganizationalUnit: []string{"Plant", "Hall 2"}, Country: []string{"DE"},
		ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: "odd"}},
	}
	directory := marshal(t, pkix.Name{CommonName: "dir", Organization: []string{"DirOrg"}}.ToRDNSequence())
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: marshal(t, []asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("a.example.org")},
		{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("*.example.org")},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri.String())},
		{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: directory},
	})}}
	all := map[string]string{
		"x509Subject/CN": "press-7", "x509Subject/O": "Example", "x509Subject/OU": "Plant/Hall 2", "x509Subject/C": "DE", "x509Subject/1.2.3.4": "odd",
		"x509Issuer/CN": "Root", "x509Issuer/O": "Example",
		"x509SAN/DNS": "a.example.org", "x509SAN/URI": "spiffe://example.org/press", "x509SAN/Name/CN": "dir", "x509SAN/Name/O": "DirOrg",
	}
	pick := func(keys ...string) map[string]string {
		picked := make(map[string]string)
		for _, key := range keys {
			picked[key] = all[key]
		}
		return picked
	}
	type mapping = rolesanywheretest.AttributeMapping
	for _, test := range []struct {
		name     string
		mappings []mapping
		want     map[string]string
	}{
		{"default", nil, all},
		{"none", []mapping{}, pick()},
		{"some", []mapping{
			{Field: rolesanywheretest.Subject, Specifiers: []string{"OU", "absent"}},
			{Field: rolesanywheretest.SAN, Specifiers: []string{"URI", "Name/O"}},
		}, pick("x509Subject/OU", "x509SAN/URI", "x509SAN/Name/O")},
		{"whole SAN", []mapping{{Field: rolesanywheretest.SAN, Specifiers: []string{"*"}}}, pick("x509SAN/DNS", "x509SAN/URI", "x509SAN/Name/CN", "x509SAN/Name/O")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			check(t, w.UpdateProfile(w.profile, func(p *rolesanywheretest.Profile) { p.AttributeMappings = test.mappings }))
			check(t, w.UpdateRole(w.role, func(r *rolesanywheretest.Role) {
				r.Trust.PrincipalTags = test.want
				r.Trust.SourceARNs = []string{w.anchor}
			}))
			template := *template
			r := w.do(t, w.callBy(issue(t, &w.ca, newKey(t, "P-256"), &template)))
			wantCreated(t, w, r)
			session, _ := w.Session(r.Set[0].Credentials.AccessKeyID)
			if fmt.Sprint(session.Tags) != fmt.Sprint(test.want) {
				t.Errorf("tags\n%v\nwant\n%v", session.Tags, test.want)
			}
		})
	}
}

func TestAnswerToManyIllegalTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	template := leafTemplate("a*b")
	template.Subject.OrganizationalUnit = []string{"c*d"}
	got := w.do(t, w.callBy(issue(t, &w.ca, newKey(t, "P-256"), template))).Message
	if want := "Issuer: [  ]; Subject: [ OU, CN ]; SAN: [  ]"; !strings.HasSuffix(got, want) {
		t.Errorf("%q, want …%q", got, want)
	}
}
