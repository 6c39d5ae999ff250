package rolesanywhere

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
)

type vector struct {
	Name                   string
	Method                 string
	Path                   string
	RawQuery               string
	Headers                map[string]string
	Body                   string
	Region                 string
	CanonicalRequestSHA256 string
	StringToSign           string
	StringToSignSHA256     string
}

func vectors(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("rolesanywheretest/testdata/createsession.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(text, &vs); err != nil {
		t.Fatal(err)
	}
	if len(vs) != 2 {
		t.Fatalf("%d recorded requests, want 2", len(vs))
	}
	return vs
}

func TestRecordedRequestsReproduce(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			req := &http.Request{
				Method: v.Method,
				Host:   v.Headers["Host"],
				URL:    &url.URL{Scheme: "http", Host: v.Headers["Host"], Path: v.Path, RawQuery: v.RawQuery},
				Header: http.Header{},
			}
			for name, value := range v.Headers {
				if name != "Host" && name != "Authorization" {
					req.Header.Set(name, value)
				}
			}
			canonical, signedHeaders := canonicalRequest(req, []byte(v.Body))
			sum := sha256.Sum256([]byte(canonical))
			if got := hex.EncodeToString(sum[:]); got != v.CanonicalRequestSHA256 {
				t.Errorf("canonical request hashes to %s, want %s:\n%s", got, v.CanonicalRequestSHA256, canonical)
			}
			algorithm, rest, _ := strings.Cut(v.Headers["Authorization"], " ")
			at, err := time.Parse(dateFormat, v.Headers["X-Amz-Date"])
			if err != nil {
				t.Fatal(err)
			}
			scope := at.Format("20060102") + "/" + v.Region + "/rolesanywhere/aws4_request"
			toSign := stringToSign(algorithm, at, scope, canonical)
			if toSign != v.StringToSign {
				t.Errorf("string to sign\n%s\nwant\n%s", toSign, v.StringToSign)
			}
			sum = sha256.Sum256([]byte(toSign))
			if got := hex.EncodeToString(sum[:]); got != v.StringToSignSHA256 {
				t.Errorf("string to sign hashes to %s, want %s", got, v.StringToSignSHA256)
			}
			if !strings.Contains(rest, "SignedHeaders="+signedHeaders+",") {
				t.Errorf("signed headers %s, recorded %s", signedHeaders, rest)
			}

			der, err := base64.StdEncoding.DecodeString(v.Headers["X-Amz-X509"])
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			_, hexSig, _ := strings.Cut(rest, "Signature=")
			sig, err := hex.DecodeString(hexSig)
			if err != nil {
				t.Fatal(err)
			}
			if err := signer.Verify(cert.PublicKey, []byte(toSign), sig, crypto.SHA256); err != nil {
				t.Errorf("recorded signature: %v", err)
			}
			if !strings.Contains(rest, "Credential="+cert.SerialNumber.String()+"/"+scope+",") {
				t.Errorf("credential of serial %s, scope %s; recorded %s", cert.SerialNumber, scope, rest)
			}
		})
	}
}

func testIdentity(t *testing.T, key crypto.Signer) *signer.Identity {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "CA"}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "edge"}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := signer.New(key, leaf, nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// faultyKey is a token whose signatures are wrong.
type faultyKey struct{ *ecdsa.PrivateKey }

func (k faultyKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	other := sha256.Sum256(digest)
	return k.PrivateKey.Sign(r, other[:], o)
}

func TestWrongSignatureIsNotSent(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := testIdentity(t, faultyKey{key})
	req, _ := http.NewRequest(http.MethodPost, "http://127.0.0.1/sessions", nil)
	err = Sign(req, nil, id, "us-east-1", time.Now())
	if !errors.Is(err, ErrBadSignature) {
		t.Fatalf("Sign with a faulty key: %v, want ErrBadSignature", err)
	}
	if req.Header.Get("Authorization") != "" {
		t.Error("the request was signed all the same")
	}
}

func TestCanonicalRequest(t *testing.T) {
	req, err := http.NewRequest(http.MethodPost, "https://host:8443/a%2Fb?b=2&a=x%20y&a=%2F:~*", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Zed", "  two   spaces ")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "not signed")
	canonical, signed := canonicalRequest(req, nil)
	want := "POST\n/a%2Fb\na=x%20y&a=%2F%3A~%2A&b=2\n" +
		"content-type:application/json\nhost:host:8443\nx-amz-zed:two spaces\n\n" +
		"content-type;host;x-amz-zed\n" +
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if canonical != want {
		t.Errorf("canonical request\n%s\nwant\n%s", canonical, want)
	}
	if signed != "content-type;host;x-amz-zed" {
		t.Errorf("signed headers %s", signed)
	}
}
