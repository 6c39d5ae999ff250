// Package rolesanywheretest provides an AWS IAM Roles Anywhere endpoint for
// tests, in the manner of net/http/httptest. It verifies a CreateSession
// request as strictly as the service is known to, refuses in the service's
// words, and issues sessions that an STS of your own can look up.
//
// # Set-up
//
// A server starts empty. It needs what an AWS account needs: a trust anchor
// (your CA), a role, and a profile that lists the role.
//
//	s := rolesanywheretest.NewServer()
//	defer s.Close()
//	anchor, err := s.AddTrustAnchor(rolesanywheretest.TrustAnchor{
//		Name: "plant", Certificates: []*x509.Certificate{ca},
//	})
//	role := s.AddRole(rolesanywheretest.Role{Name: "press"})
//	profile := s.AddProfile(rolesanywheretest.Profile{Name: "plant", RoleARNs: []string{role}})
//
// Point the client at s.URL and give it the three ARNs. It must sign for
// s.Region, "us-east-1" unless set; fields are set on NewUnstartedServer's
// result before Start. A TLS server comes from NewTLSServer, and a Server is
// an http.Handler that also works with no listener at all.
//
// # What is checked
//
// In this order, and the first failure is answered:
//
//  1. POST /sessions, with headers and a body of sane size.
//  2. The Authorization header, to the letter: it has one spelling only.
//  3. host, x-amz-date, x-amz-x509, content-type and each x-amz- header sent
//     are signed, and were sent once.
//  4. The scope is of this region and of x-amz-date's day; x-amz-date is
//     within MaxClockSkew.
//  5. The signature, with the key in x-amz-x509: RSA of 2048 bits or more,
//     P-256, P-384, P-521, or ML-DSA-44, -65, -87.
//  6. The parameters, from query or body, by the service's model.
//  7. The certificate: X.509 v3, no CA, digitalSignature, SHA-256 or better,
//     a subject, valid at Clock, with a path to the trust anchor through the
//     certificates in x-amz-x509-chain, none of it revoked (ImportCRL). No
//     extended key usage is asked for.
//  8. The profile lists the role, and accepts roleSessionName if there is one.
//  9. The role's Trust: the certificate's attributes are mapped to session
//     tags (AttributeMapping) and conditions are made on them; then the
//     session's length.
//
// # When a test fails
//
// AWS says little more than "Invalid signature", and so does the server. Why
// it said so stands in the record:
//
//	for _, r := range s.Requests() {
//		t.Log(r.Status, r.Message, "-", r.Reason)
//	}
//
// When the signature itself is wrong, Canonicalize returns the canonical
// request and the string to sign that the server computed, to be compared
// with the client's.
//
// # Time
//
// Set Clock to move time without sleeping: dates, certificates, expirations
// and the answers' Date header follow it. Lower MinSession to have sessions
// of a few seconds.
//
// # Faults
//
// Inject makes the next answers go wrong, one fault each; SetFault makes all
// of them. There are errors of the service, connections that drop, hang or
// trickle, and the pages a captive portal puts in the way:
//
//	s.Inject(rolesanywheretest.Status503, rolesanywheretest.Drop, rolesanywheretest.Slow(time.Second))
//
// # Fidelity
//
// Where AWS's status or text is not publicly known, the server makes a
// sensible one, marked "not observed" in the source. Do not let a client
// depend on those. Session policies, managed policies and name constraints
// on ML-DSA paths are not modelled, and nothing is stored beyond the process.
package rolesanywheretest
