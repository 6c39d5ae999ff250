package rolesanywheretest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// certify makes a certificate of template. A nil parent makes it self-signed.
func certify(template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		log.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		log.Fatal(err)
	}
	return certificate
}

// createSession is the smallest client there is: one signed request.
func createSession(endpoint string, query url.Values, certificate *x509.Certificate, key *ecdsa.PrivateKey) (*http.Response, error) {
	const body = `{"durationSeconds":900}`
	r, err := http.NewRequest("POST", endpoint+"/sessions?"+query.Encode(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	date := time.Now().UTC().Format("20060102T150405Z")
	encoded := base64.StdEncoding.EncodeToString(certificate.Raw)
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("X-Amz-X509", encoded)

	const algorithm, signed = "AWS4-X509-ECDSA-SHA256", "host;x-amz-date;x-amz-x509"
	scope := date[:8] + "/us-east-1/rolesanywhere/aws4_request"
	canonical := "POST\n/sessions\n" + query.Encode() + "\nhost:" + r.Host + "\nx-amz-date:" + date + "\nx-amz-x509:" + encoded +
		"\n\n" + signed + "\n" + fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	toSign := algorithm + "\n" + date + "\n" + scope + "\n" + fmt.Sprintf("%x", sha256.Sum256([]byte(canonical)))
	digest := sha256.Sum256([]byte(toSign))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%x",
		algorithm, certificate.SerialNumber, scope, signed, signature))
	return http.DefaultClient.Do(r)
}

func Example() {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	ca := certify(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Plant CA"},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, &caKey.PublicKey, caKey)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	leaf := certify(&x509.Certificate{
		SerialNumber: big.NewInt(0x2a), Subject: pkix.Name{CommonName: "press-7", OrganizationalUnit: []string{"Hall 2"}},
		KeyUsage: x509.KeyUsageDigitalSignature,
	}, ca, &key.PublicKey, caKey)

	s := rolesanywheretest.NewServer()
	defer s.Close()
	anchor, err := s.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "plant", Certificates: []*x509.Certificate{ca}})
	if err != nil {
		log.Fatal(err)
	}
	role := s.AddRole(rolesanywheretest.Role{
		Name:  "press",
		Trust: rolesanywheretest.Trust{PrincipalTags: map[string]string{"x509Subject/OU": "Hall 2"}},
	})
	profile := s.AddProfile(rolesanywheretest.Profile{Name: "plant", RoleARNs: []string{role}})

	response, err := createSession(s.URL, url.Values{
		"profileArn": {profile}, "roleArn": {role}, "trustAnchorArn": {anchor},
	}, leaf, key)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	var created struct {
		CredentialSet []struct {
			AssumedRoleUser struct{ ARN string }
			SourceIdentity  string
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&created); err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.Status)
	for _, set := range created.CredentialSet {
		fmt.Println(set.AssumedRoleUser.ARN, set.SourceIdentity)
	}
	// Output:
	// 201 Created
	// arn:aws:sts::123456789012:assumed-role/press/2a CN=press-7
}
