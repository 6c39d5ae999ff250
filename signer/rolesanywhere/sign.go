package rolesanywhere

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cloudflare/circl/sign"

	"github.com/holdfast-iam/holdfast/signer"
)

const (
	service    = "rolesanywhere"
	dateFormat = "20060102T150405Z"

	headerDate  = "X-Amz-Date"
	headerX509  = "X-Amz-X509"
	headerChain = "X-Amz-X509-Chain"
)

// ErrBadSignature says that the key's signature does not verify against the
// certificate although the key belongs to it: the token, or the module that
// drives it, is faulty. Nothing was sent.
var ErrBadSignature = errors.New("the key returned a signature that does not verify against the certificate")

// ErrNotSigned says that the key made no signature. Nothing was sent.
var ErrNotSigned = errors.New("sign with the key")

// Sign signs req with AWS4-X509 in the version of IAM Roles Anywhere: it sets
// X-Amz-Date, X-Amz-X509, X-Amz-X509-Chain and Authorization, and covers the
// host, Content-Type and every X-Amz- header. body is what req will send.
// region is the signing region, never a "-fips" pseudo-region.
//
// It asks id for one signature and verifies it; a signature that does not fit
// the certificate is an error that wraps [ErrBadSignature]; none at all, such as
// when req's context ends first, one that wraps [ErrNotSigned].
func Sign(req *http.Request, body []byte, id *signer.Identity, region string, at time.Time) error {
	algorithm, opts, err := algorithmOf(id.Public())
	if err != nil {
		return err
	}
	cert := id.Certificate()
	at = at.UTC()
	req.Header.Set(headerDate, at.Format(dateFormat))
	req.Header.Set(headerX509, base64.StdEncoding.EncodeToString(cert.Raw))
	req.Header.Del(headerChain)
	if chain := id.Chain(); len(chain) > 0 {
		ders := make([]string, len(chain))
		for i, c := range chain {
			ders[i] = base64.StdEncoding.EncodeToString(c.Raw)
		}
		req.Header.Set(headerChain, strings.Join(ders, ","))
	}

	canonical, signedHeaders := canonicalRequest(req, body)
	scope := strings.Join([]string{at.Format("20060102"), region, service, "aws4_request"}, "/")
	toSign := stringToSign(algorithm, at, scope, canonical)

	sig, err := id.SignMessageContext(req.Context(), []byte(toSign), opts)
	if err != nil {
		return fmt.Errorf("%w of %q: %w", ErrNotSigned, cert.Subject, err)
	}
	if err := signer.Verify(id.Public(), []byte(toSign), sig, opts); err != nil {
		return signer.WithHint(
			fmt.Errorf("%w %q (%v)", ErrBadSignature, cert.Subject, err),
			"nothing was sent; the key's hardware or its driver is faulty")
	}
	req.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		algorithm, cert.SerialNumber, scope, signedHeaders, hex.EncodeToString(sig)))
	return nil
}

// algorithmOf returns the AWS4-X509 algorithm for a public key, and what
// crypto.SignMessage needs to sign so.
func algorithmOf(pub crypto.PublicKey) (string, crypto.SignerOpts, error) {
	switch pub.(type) {
	case *rsa.PublicKey:
		return "AWS4-X509-RSA-SHA256", crypto.SHA256, nil
	case *ecdsa.PublicKey:
		return "AWS4-X509-ECDSA-SHA256", crypto.SHA256, nil
	case sign.PublicKey:
		return "AWS4-X509-MLDSA", crypto.Hash(0), nil
	}
	return "", nil, fmt.Errorf("%w: IAM Roles Anywhere has no signing algorithm for %s", signer.ErrUnsupportedKey, signer.DescribeKey(pub))
}

func stringToSign(algorithm string, at time.Time, scope, canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return strings.Join([]string{algorithm, at.Format(dateFormat), scope, hex.EncodeToString(sum[:])}, "\n")
}

func canonicalRequest(req *http.Request, body []byte) (canonical, signedHeaders string) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	headers := map[string]string{"host": host}
	for name, values := range req.Header {
		name = strings.ToLower(name)
		if name == "content-type" || strings.HasPrefix(name, "x-amz-") {
			headers[name] = strings.Join(trimAll(values), ",")
		}
	}
	names := make([]string, 0, len(headers))
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)

	path := req.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s\n", req.Method, path, canonicalQuery(req.URL.Query()))
	for _, name := range names {
		fmt.Fprintf(&b, "%s:%s\n", name, headers[name])
	}
	signedHeaders = strings.Join(names, ";")
	sum := sha256.Sum256(body)
	fmt.Fprintf(&b, "\n%s\n%s", signedHeaders, hex.EncodeToString(sum[:]))
	return b.String(), signedHeaders
}

// trimAll trims each value and folds the runs of spaces inside it, as SigV4
// wants.
func trimAll(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.Join(strings.Fields(v), " ")
	}
	return out
}

// canonicalQuery differs from url.Values.Encode in the space, which is %20.
func canonicalQuery(q url.Values) string {
	return strings.ReplaceAll(q.Encode(), "+", "%20")
}
