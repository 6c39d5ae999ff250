package rolesanywheretest_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// refusalCase is a good request made bad in one way.
type refusalCase struct {
	name    string
	bend    func(t *testing.T, w *world, c *call)
	status  int
	kind    string
	message string // {role}, {profile} and {anchor} stand for ARNs
	reason  string // part of Request.Reason
}

func runRefusals(t *testing.T, cases []refusalCase) {
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.call()
			test.bend(t, w, c)
			r := w.do(t, c)
			message := strings.NewReplacer("{role}", w.role, "{profile}", w.profile, "{anchor}", w.anchor).Replace(test.message)
			if r.status != test.status || r.errorType != test.kind || r.Message != message {
				t.Errorf("got %s\nwant %d %s: %s", answerOf(r), test.status, test.kind, message)
			}
			record := w.last()
			if record.Status != test.status || record.ErrorType != test.kind || record.Message != message {
				t.Errorf("recorded %d %s: %s", record.Status, record.ErrorType, record.Message)
			}
			if !strings.Contains(record.Reason, test.reason) {
				t.Errorf("reason %q, want …%s…", record.Reason, test.reason)
			}
			if r.header.Get("x-amzn-RequestId") != record.ID || r.header.Get("Date") != noon.Format(http.TimeFormat) || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", r.header)
			}
		})
	}
}

const (
	accessDenied = "AccessDeniedException"
	validation   = "ValidationException"
)

func refuseSignature(name, reason string, bend func(t *testing.T, w *world, c *call)) refusalCase {
	return refusalCase{name, bend, 403, accessDenied, "Invalid signature", reason}
}

func TestRefusalsOfRequests(t *testing.T) {
	t.Parallel()
	runRefusals(t, []refusalCase{
		{"GET", func(t *testing.T, w *world, c *call) { c.method = "GET" }, 404, "UnknownOperationException", "Unknown operation", "POST /sessions"},
		{"other path", func(t *testing.T, w *world, c *call) { c.path = "/sessions/" }, 404, "UnknownOperationException", "Unknown operation", "POST /sessions"},
		{"huge body", func(t *testing.T, w *world, c *call) { c.body = strings.Repeat(" ", 300<<10) }, 413, "RequestEntityTooLargeException", "Request body is too large", "bytes"},
		{"huge header", func(t *testing.T, w *world, c *call) { c.unsigned.Set("X-Other", strings.Repeat("a", 200<<10)) }, 431, "RequestEntityTooLargeException", "Request headers are too large", "bytes"},
		{"throttled", func(t *testing.T, w *world, c *call) {
			w.Throttle = 1
			wantCreated(t, w, w.do(t, c))
		}, 429, "ThrottlingException", "Rate exceeded", "more than 1"},
		refuseSignature("clock ahead", "off, at most 5m0s", func(t *testing.T, w *world, c *call) {
			c.header.Set("X-Amz-Date", noon.Add(30*time.Minute).Format("20060102T150405Z"))
		}),
		refuseSignature("clock behind", "off, at most 5m0s", func(t *testing.T, w *world, c *call) {
			c.header.Set("X-Amz-Date", noon.Add(-5*time.Minute-time.Second).Format("20060102T150405Z"))
		}),
		refuseSignature("skew configured", "at most 1s", func(t *testing.T, w *world, c *call) {
			w.MaxClockSkew = time.Second
			c.header.Set("X-Amz-Date", noon.Add(2*time.Second).Format("20060102T150405Z"))
		}),
		refuseSignature("date format", "not of the form", func(t *testing.T, w *world, c *call) { c.header.Set("X-Amz-Date", noon.Format(time.RFC3339)) }),
		refuseSignature("scope date", "scope's date", func(t *testing.T, w *world, c *call) { c.day = "20260313" }),
		refuseSignature("service", "service", func(t *testing.T, w *world, c *call) { c.terminator = "sts/aws4_request" }),
		refuseSignature("terminator", "ends in", func(t *testing.T, w *world, c *call) { c.terminator = "rolesanywhere/aws4" }),
		{"region", func(t *testing.T, w *world, c *call) { c.region = "eu-west-1" }, 403, accessDenied, "Credential should be scoped to a valid region.", "eu-west-1"},
		{"FIPS region", func(t *testing.T, w *world, c *call) { c.region = "us-east-1-fips" }, 403, accessDenied, "Credential should be scoped to a valid region.", "us-east-1-fips"},
		refuseSignature("hex serial", "not decimal", func(t *testing.T, w *world, c *call) { c.serial = w.leaf.SerialNumber.Text(16) + "a" }),
		refuseSignature("padded serial", "leading zero", func(t *testing.T, w *world, c *call) { c.serial = "0" + c.serial }),
		refuseSignature("other serial", "the credential's serial is 7", func(t *testing.T, w *world, c *call) { c.serial = "7" }),
		refuseSignature("other algorithm", "needs AWS4-X509-ECDSA-SHA256", func(t *testing.T, w *world, c *call) { c.algorithm = "AWS4-X509-RSA-SHA256" }),
		refuseSignature("unknown algorithm", "unknown algorithm", func(t *testing.T, w *world, c *call) { c.algorithm = "AWS4-HMAC-SHA256" }),
		refuseSignature("trailing byte in DER", "does not verify", func(t *testing.T, w *world, c *call) {
			c.sign = func(m []byte) []byte { return append(w.leaf.sign(m), 0) }
		}),
		refuseSignature("other key", "does not verify", func(t *testing.T, w *world, c *call) { c.sign = newKey(t, "P-256").sign }),
		refuseSignature("no signature", "lower-case hex", func(t *testing.T, w *world, c *call) { c.sign = func([]byte) []byte { return nil } }),
		refuseSignature("x-amz header not signed", "x-amz-meta must be signed", func(t *testing.T, w *world, c *call) { c.unsigned.Set("X-Amz-Meta", "1") }),
		refuseSignature("content type not signed", "content-type must be signed", func(t *testing.T, w *world, c *call) {
			c.header.Del("Content-Type")
			c.unsigned.Set("Content-Type", "application/json")
		}),
		refuseSignature("chain not signed", "x-amz-x509-chain must be signed", func(t *testing.T, w *world, c *call) {
			c.chain(w.ca.Certificate)
			c.unsigned["X-Amz-X509-Chain"] = c.header["X-Amz-X509-Chain"]
			c.header.Del("X-Amz-X509-Chain")
		}),
		refuseSignature("date sent twice", "sent 2 times", func(t *testing.T, w *world, c *call) { c.unsigned["X-Amz-Date"] = c.header["X-Amz-Date"] }),
		refuseSignature("signed headers unsorted", "out of order", func(t *testing.T, w *world, c *call) {
			c.listed = []string{"host", "content-type", "x-amz-date", "x-amz-x509"}
		}),
		refuseSignature("parameter without a name", "without a name", func(t *testing.T, w *world, c *call) { c.params = append(c.params, [2]string{"", "x"}) }),
	})
}

func TestRefusalsOfParameters(t *testing.T) {
	t.Parallel()
	const one = "1 validation error detected: "
	refuse := func(name, message string, bend func(t *testing.T, w *world, c *call)) refusalCase {
		return refusalCase{name, bend, 400, validation, message, ""}
	}
	body := func(text string) func(*testing.T, *world, *call) {
		return func(t *testing.T, w *world, c *call) { c.body = text }
	}
	malformed := func(name, text, reason string) refusalCase {
		return refusalCase{name, body(text), 400, "SerializationException", "Unable to parse the request body as JSON.", reason}
	}
	pattern := "Member must satisfy regular expression pattern: "
	runRefusals(t, []refusalCase{
		refuse("duration below", one+"Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900", body(`{"durationSeconds":899}`)),
		refuse("duration above", one+"Value '43201' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 43200", body(`{"durationSeconds":43201}`)),
		refuse("session name short", one+"Value 'a' at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2", body(`{"roleSessionName":"a"}`)),
		refuse("session name long", one+"Value '"+strings.Repeat("a", 65)+"' at 'roleSessionName' failed to satisfy constraint: Member must have length less than or equal to 64", body(`{"roleSessionName":"`+strings.Repeat("a", 65)+`"}`)),
		refuse("session name characters", one+"Value 'a b' at 'roleSessionName' failed to satisfy constraint: "+pattern+`[\w+=,.@-]*`, body(`{"roleSessionName":"a b"}`)),
		refuse("instance properties", one+"Value '' at 'instanceProperties' failed to satisfy constraint: Member must have length less than or equal to 50", func(t *testing.T, w *world, c *call) {
			var members []string
			for i := range 51 {
				members = append(members, `"k`+strings.Repeat("x", i)+`":"v"`)
			}
			c.body = `{"instanceProperties":{` + strings.Join(members, ",") + `}}`
		}),
		refuse("instance property long", one+"Value '' at 'instanceProperties' failed to satisfy constraint: Map keys and values must have length less than or equal to 200", body(`{"instanceProperties":{"k":"`+strings.Repeat("v", 201)+`"}}`)),
		refuse("no role", one+"Value null at 'roleArn' failed to satisfy constraint: Member must not be null", func(t *testing.T, w *world, c *call) { c.param("roleArn") }),
		refuse("bad role", one+"Value 'arn:aws:iam::1:role/x' at 'roleArn' failed to satisfy constraint: "+pattern+`^arn:aws(-[^:]+)?:iam(:.*){2}(:role.*)$`, func(t *testing.T, w *world, c *call) { c.param("roleArn", "arn:aws:iam::1:role/x") }),
		refuse("role of another service", one+"Value 'arn:aws:sts::123456789012:role/press' at 'roleArn' failed to satisfy constraint: "+pattern+`^arn:aws(-[^:]+)?:iam(:.*){2}(:role.*)$`, func(t *testing.T, w *world, c *call) { c.param("roleArn", "arn:aws:sts::123456789012:role/press") }),
		refuse("swapped ARNs", "2 validation errors detected: Value '{anchor}' at 'profileArn' failed to satisfy constraint: "+pattern+`^arn:aws(-[^:]+)?:rolesanywhere(:.*){2}(:profile.*)$`+
			"; Value '{profile}' at 'trustAnchorArn' failed to satisfy constraint: "+pattern+`^arn:aws(-[^:]+)?:rolesanywhere(:.*){2}(:trust-anchor.*)$`,
			func(t *testing.T, w *world, c *call) {
				c.param("profileArn", w.anchor)
				c.param("trustAnchorArn", w.profile)
			}),
		refuse("conflict of query and body", "Conflicting values in query and body.", func(t *testing.T, w *world, c *call) { c.body = `{"roleArn":"` + w.role + `2"}` }),
		refuse("conflict within query", "Conflicting values in query and body.", func(t *testing.T, w *world, c *call) { c.param("roleArn", w.role, w.role+"2") }),
		malformed("not JSON", `durationSeconds=3600`, "not a JSON object"),
		malformed("array", `[]`, "not a JSON object"),
		malformed("cut off", `{"durationSeconds":3600`, "EOF"),
		malformed("trailing junk", `{} {}`, "follows"),
		malformed("member twice", `{"durationSeconds":3600,"durationSeconds":3600}`, "twice"),
		malformed("duration as text", `{"durationSeconds":"3600"}`, "durationSeconds"),
		malformed("fraction", `{"durationSeconds":3600.5}`, "durationSeconds"),
		malformed("not UTF-8", "{\"a\":\"\xff\"}", "UTF-8"),
		{"certificate not base64", func(t *testing.T, w *world, c *call) { c.header.Set("X-Amz-X509", "MII") }, 400, validation, "Unable to parse the signing certificate.", "base64"},
		{"certificate in PEM", func(t *testing.T, w *world, c *call) { c.header.Set("X-Amz-X509", "-----BEGIN CERTIFICATE-----") }, 400, validation, "Unable to parse the signing certificate.", "base64"},
		{"two certificates", func(t *testing.T, w *world, c *call) {
			c.header.Set("X-Amz-X509", base64Of(append(append([]byte(nil), w.leaf.Raw...), w.ca.Raw...)))
		}, 400, validation, "Unable to parse the signing certificate.", "trailing"},
		{"chain of six", func(t *testing.T, w *world, c *call) {
			c.chain(w.ca.Certificate, w.ca.Certificate, w.ca.Certificate, w.ca.Certificate, w.ca.Certificate, w.ca.Certificate)
		}, 400, validation, "Unable to parse the certificate chain.", "at most 5"},
		{"chain divided by spaces", func(t *testing.T, w *world, c *call) {
			c.header.Set("X-Amz-X509-Chain", base64Of(w.ca.Raw)+", "+base64Of(w.ca.Raw))
		}, 400, validation, "Unable to parse the certificate chain.", "certificate 2"},
	})
}

func TestRefusalsOfCertificates(t *testing.T) {
	t.Parallel()
	const insufficient = "Untrusted certificate. Insufficient certificate"
	// leaf puts a leaf made by template and edits in the place of the good one
	leaf := func(kind string, alter func(*x509.Certificate), edits ...func(*tbsCertificate)) func(*testing.T, *world, *call) {
		return func(t *testing.T, w *world, c *call) {
			template := leafTemplate("odd")
			alter(template)
			*c = *w.callBy(issue(t, &w.ca, newKey(t, kind), template, edits...))
		}
	}
	same := func(*x509.Certificate) {}
	runRefusals(t, []refusalCase{
		{"no digitalSignature", leaf("P-256", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), 403, accessDenied, insufficient, "lacks digitalSignature"},
		{"no key usage", leaf("P-256", func(c *x509.Certificate) { c.KeyUsage = 0 }), 403, accessDenied, insufficient, "lacks digitalSignature"},
		{"leaf is a CA", leaf("P-256", func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true }), 403, accessDenied, insufficient, "is a CA"},
		{"version 1", leaf("P-256", same, func(c *tbsCertificate) { c.Version, c.Extensions = 0, nil }), 403, accessDenied, insufficient, "X.509 v1"},
		{"SHA-1", leaf("P-256", same, func(c *tbsCertificate) { c.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1} }), 403, accessDenied, insufficient, "SHA1"},
		{"no subject", leaf("P-256", func(c *x509.Certificate) { c.Subject = pkix.Name{} }), 403, accessDenied, insufficient, "subject is empty"},
		{"expired", leaf("P-256", func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }), 403, accessDenied, "Untrusted signing certificate", "expired"},
		{"not yet valid", leaf("P-256", func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) }), 403, accessDenied, "Untrusted signing certificate", "not valid before"},
		{"unknown critical extension", leaf("P-256", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), 403, accessDenied, "Untrusted signing certificate", "critical extension"},
		{"P-224", leaf("P-224", same), 403, accessDenied, "Invalid signature", "P-224"},
		{"Ed25519", leaf("Ed25519", same), 403, accessDenied, "Invalid signature", "ed25519"},
		{"RSA-1024", leaf("RSA-1024", same), 403, accessDenied, "Invalid signature", "1024 bits"},
		{"other CA of the same name", func(t *testing.T, w *world, c *call) {
			*c = *w.callBy(newLeaf(t, newCA(t, "P-256", "Root"), "P-256", "stranger"))
		}, 403, accessDenied, "Untrusted signing certificate", "did not sign"},
		{"other CA", func(t *testing.T, w *world, c *call) {
			other := newCA(t, "P-256", "Other")
			*c = *w.callBy(newLeaf(t, other, "P-256", "stranger"), other.Certificate)
		}, 403, accessDenied, "Untrusted signing certificate", "no usable issuer"},
	})
}

func TestRefusalsOfResources(t *testing.T) {
	t.Parallel()
	const (
		roleNotListed = "Requested Role isn't one of those listed in the Profile."
		noProfile     = "Invalid or empty profile provided."
		unassumable   = "Unable to assume role for {role}."
	)
	refuse := func(name, message, reason string, bend func(t *testing.T, w *world, c *call)) refusalCase {
		return refusalCase{name, bend, 403, accessDenied, message, reason}
	}
	role := func(name, message, reason string, change func(w *world, r *rolesanywheretest.Role)) refusalCase {
		return refuse(name, message, reason, func(t *testing.T, w *world, c *call) {
			check(t, w.UpdateRole(w.role, func(r *rolesanywheretest.Role) { change(w, r) }))
		})
	}
	profile := func(name, message, reason string, change func(w *world, p *rolesanywheretest.Profile)) refusalCase {
		return refuse(name, message, reason, func(t *testing.T, w *world, c *call) {
			check(t, w.UpdateProfile(w.profile, func(p *rolesanywheretest.Profile) { change(w, p) }))
		})
	}
	const unknown = "00000000-0000-4000-8000-000000000000"
	runRefusals(t, []refusalCase{
		{"no such anchor", func(t *testing.T, w *world, c *call) {
			c.param("trustAnchorArn", "arn:aws:rolesanywhere:us-east-1:123456789012:trust-anchor/"+unknown)
		}, 404, "ResourceNotFoundException", "Specified Trust Anchor wasn't found.", "unknown"},
		{"anchor of another region", func(t *testing.T, w *world, c *call) {
			c.param("trustAnchorArn", strings.Replace(w.anchor, "us-east-1", "us-east-2", 1))
		}, 404, "ResourceNotFoundException", "Specified Trust Anchor wasn't found.", "us-east-2"},
		refuse("anchor disabled", "Specified Trust Anchor is disabled.", "trust-anchor", func(t *testing.T, w *world, c *call) { check(t, w.DisableTrustAnchor(w.anchor)) }),
		refuse("no such profile", noProfile, "unknown", func(t *testing.T, w *world, c *call) {
			c.param("profileArn", "arn:aws:rolesanywhere:us-east-1:123456789012:profile/"+unknown)
		}),
		refuse("profile of another region", noProfile, "of region us-east-2", func(t *testing.T, w *world, c *call) {
			c.param("profileArn", w.AddProfile(rolesanywheretest.Profile{ARN: strings.Replace(w.profile, "us-east-1", "us-east-2", 1), RoleARNs: []string{w.role}}))
		}),
		refuse("profile of another account", noProfile, "of account 2", func(t *testing.T, w *world, c *call) {
			c.param("profileArn", w.AddProfile(rolesanywheretest.Profile{ARN: strings.Replace(w.profile, "123456789012", "222222222222", 1), RoleARNs: []string{w.role}}))
		}),
		refuse("profile disabled", "Specified Profile is disabled.", "profile", func(t *testing.T, w *world, c *call) { check(t, w.DisableProfile(w.profile)) }),
		profile("profile without roles", noProfile, "no roles", func(w *world, p *rolesanywheretest.Profile) { p.RoleARNs = nil }),
		profile("profile too short", noProfile, "out of bounds", func(w *world, p *rolesanywheretest.Profile) { p.Duration = time.Minute }),
		profile("role not listed", roleNotListed, "role/press", func(w *world, p *rolesanywheretest.Profile) { p.RoleARNs[0] += "2" }),
		refuse("role listed but not there", "Unable to assume role for arn:aws:iam::123456789012:role/ghost.", "unknown", func(t *testing.T, w *world, c *call) {
			const ghost = "arn:aws:iam::123456789012:role/ghost"
			check(t, w.UpdateProfile(w.profile, func(p *rolesanywheretest.Profile) { p.RoleARNs = append(p.RoleARNs, ghost) }))
			c.param("roleArn", ghost)
		}),
		refuse("session name not accepted", "Not authorized to set roleSessionName.", "acceptRoleSessionName", func(t *testing.T, w *world, c *call) { c.body = `{"roleSessionName":"me"}` }),
		role("no TagSession", unassumable, "sts:TagSession", func(w *world, r *rolesanywheretest.Role) { r.Trust.DenyTagSession = true }),
		role("no SetSourceIdentity", unassumable, "sts:SetSourceIdentity", func(w *world, r *rolesanywheretest.Role) { r.Trust.DenySetSourceIdentity = true }),
		role("other anchor", unassumable, "aws:SourceArn", func(w *world, r *rolesanywheretest.Role) { r.Trust.SourceARNs = []string{w.anchor + "0"} }),
		role("other tag", unassumable, `x509Subject/OU is "Plant", want "Lab"`, func(w *world, r *rolesanywheretest.Role) {
			r.Trust.PrincipalTags = map[string]string{"x509Subject/CN": "press-7", "x509Subject/OU": "Lab"}
		}),
		role("condition", unassumable, "Condition", func(w *world, r *rolesanywheretest.Role) {
			r.Trust.Condition = func(s rolesanywheretest.Session) bool { return s.SourceIdentity != "CN=press-7" }
		}),
		role("role's longest session", unassumable+" The requested DurationSeconds exceeds the MaxSessionDuration set for this role.", "the role allows 30m0s", func(w *world, r *rolesanywheretest.Role) {
			r.MaxSessionDuration = 30 * time.Minute
		}),
		refuse("illegal tag", unassumable+" Some attributes failed to be mapped into session tags. Issuer: [  ]; Subject: [ CN ]; SAN: [ DNS ]", "no legal tag", func(t *testing.T, w *world, c *call) {
			template := leafTemplate("*.example.com")
			template.DNSNames = []string{"*.example.com"}
			*c = *w.callBy(issue(t, &w.ca, newKey(t, "P-256"), template))
		}),
		refuse("long tag", unassumable+" Some attributes failed to be mapped into session tags. Issuer: [  ]; Subject: [ O ]; SAN: [  ]", "256", func(t *testing.T, w *world, c *call) {
			template := leafTemplate("press-7")
			template.Subject.Organization = []string{strings.Repeat("o", 257)}
			*c = *w.callBy(issue(t, &w.ca, newKey(t, "P-256"), template))
		}),
	})
}
