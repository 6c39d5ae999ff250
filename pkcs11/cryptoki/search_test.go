//go:build cgo

package cryptoki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

// Labels and ids of all kinds, found by label, by id and by the URI that List
// prints.
func TestOddNames(t *testing.T) {
	newHSM(t, "Ein Token % für ü")
	m := load(t)
	names := []struct{ label, id string }{
		{"with spaces", "\x01"},
		{"Schlüssel 鍵", "\x00\x00\x01"},
		{"100% + more;?&=/", "%41"},
		{"zero\x00byte", "a\x00b"},
		{strings.Repeat("long ", 20), strings.Repeat("\xff", 40)},
	}
	base := new(pkcs11.URI).With(pkcs11.AttrToken, "Ein Token % für ü")
	for _, n := range names {
		u := base.With(pkcs11.AttrObject, n.label).With(pkcs11.AttrID, n.id)
		generate(t, m, u.Exact(), "ec-p256", options(nil))
	}
	all, err := m.List(t.Context(), base, options(nil))
	if err != nil || len(all) != 1 || len(all[0].Keys) != len(names) {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, k := range all[0].Keys {
		checkSigns(t, open(t, m, k.URI().Exact(), nil, options(nil)))
	}
	for _, n := range names {
		for _, u := range []*pkcs11.URI{base.With(pkcs11.AttrObject, n.label), base.With(pkcs11.AttrID, n.id)} {
			k := open(t, m, u.Exact(), nil, options(nil))
			if k.URI().Value(pkcs11.AttrObject) != n.label || k.URI().Value(pkcs11.AttrID) != n.id {
				t.Errorf("%s led to %s", u, k.URI())
			}
		}
	}
}

func TestTwentyKeys(t *testing.T) {
	newHSM(t, "twenty")
	m := load(t)
	ctx := t.Context()
	var uris []string
	for i := range 20 {
		u := fmt.Sprintf("pkcs11:token=twenty;object=key%d;id=%%%02x", i, i)
		k := generate(t, m, u, "ec-p256", options(nil))
		if i%2 == 0 {
			if _, err := m.ImportCertificate(ctx, uri(t, u), issue(t, k, fmt.Sprint("cert", i)), options(nil)); err != nil {
				t.Fatal(err)
			}
		}
		uris = append(uris, u)
	}
	for i, u := range uris {
		k := open(t, m, u, nil, options(nil))
		if got := k.URI().Value(pkcs11.AttrObject); got != fmt.Sprint("key", i) {
			t.Errorf("%s led to %s", u, got)
		}
		certs, err := k.Certificates(ctx)
		if err != nil || len(certs) != (i+1)%2 {
			t.Errorf("%s: %d certificates, %v", u, len(certs), err)
		}
	}
	_, err := m.OpenKey(ctx, uri(t, "pkcs11:token=twenty"), nil, options(nil))
	checkError(t, err, signer.ErrAmbiguous, "it fits 10 keys", "object=key0")

	all, err := m.List(ctx, uri(t, "pkcs11:token=twenty"), options(nil))
	if err != nil || len(all) != 1 || len(all[0].Keys) != 20 || len(all[0].Certificates) != 10 || !all[0].LoggedIn {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, k := range all[0].Keys {
		if k.Extractable == nil || *k.Extractable || k.Algorithm != "EC P-256" || k.AlwaysAuthenticate {
			t.Errorf("%+v", k)
		}
		if k.Certificate >= 0 && string(all[0].Certificates[k.Certificate].ID) != string(k.ID) {
			t.Errorf("%s has another's certificate", k.URI())
		}
	}
}

// Without a PIN, a list shows the public halves and says that it saw no more.
func TestListWithoutPIN(t *testing.T) {
	newHSM(t, "list")
	m := load(t)
	generate(t, m, "pkcs11:token=list;object=k", "ec-p256", options(nil)).Close()
	all, err := m.List(t.Context(), nil, cryptoki.Options{})
	if err != nil || len(all) != 1 || all[0].LoggedIn || len(all[0].Keys) != 1 || !all[0].Keys[0].PublicOnly {
		t.Fatalf("%+v, %v", all, err)
	}
}

// The certificate alone leads to the key, also where ids do not agree or the
// key's attributes tell nothing.
func TestCertificateAlone(t *testing.T) {
	newHSM(t, "cert")
	m := load(t)
	var keys []*cryptoki.Key
	for i := range 3 {
		keys = append(keys, generate(t, m, fmt.Sprintf("pkcs11:token=cert;object=k%d;id=%%0%d", i, i+1), "ec-p256", options(nil)))
	}
	cert := issue(t, keys[1], "leaf")
	// Under the id of another key.
	onToken(t, "cert", "--write-object", writeDER(t, cert), "--type", "cert", "--label", "leaf", "--id", "01")
	k := open(t, m, "pkcs11:token=cert;object=leaf;type=cert", nil, options(nil))
	if got := k.URI().Value(pkcs11.AttrObject); got != "k1" {
		t.Errorf("led to %s", got)
	}
	// An EC private key shows no point, so that only trials tell.
	for _, id := range []string{"01", "02", "03"} {
		onToken(t, "cert", "--delete-object", "--type", "pubkey", "--id", id)
	}
	k = open(t, m, "pkcs11:token=cert;object=leaf", nil, options(nil))
	if got := k.URI().Value(pkcs11.AttrObject); got != "k1" {
		t.Errorf("led to %s by trial", got)
	}
	checkSigns(t, k)
	// The certificate as a hint, and nothing said but the token.
	if got := open(t, m, "pkcs11:token=cert", cert, options(nil)).URI().Value(pkcs11.AttrObject); got != "k1" {
		t.Errorf("the hint led to %s", got)
	}
	// Another key named beside a hint is a mismatch, not a search.
	_, err := m.OpenKey(t.Context(), uri(t, "pkcs11:token=cert;object=k0;type=private"), cert, options(nil))
	checkError(t, err, signer.ErrKeyMismatch)
}

func TestTwoTokensOfOneLabel(t *testing.T) {
	newHSM(t, "twin", "twin")
	m := load(t)
	tokens, err := m.Tokens(t.Context())
	if err != nil || len(tokens) != 2 {
		t.Fatal(tokens, err)
	}
	var asked atomic.Int64
	_, err = m.OpenKey(t.Context(), uri(t, "pkcs11:token=twin;object=k"), nil, options(&asked))
	checkError(t, err, signer.ErrAmbiguous, tokens[0].URI().String(), tokens[1].URI().String())
	for _, token := range tokens {
		generate(t, m, token.URI().With(pkcs11.AttrObject, "k").Exact(), "ec-p256", options(nil))
	}
	_, err = m.OpenKey(t.Context(), uri(t, "pkcs11:token=twin;object=k"), nil, options(&asked))
	checkError(t, err, signer.ErrAmbiguous, tokens[0].Serial, tokens[1].Serial, "object=k")
	if asked.Load() != 0 {
		t.Error("asked for a PIN though two tokens could be meant")
	}
	bySlot := new(pkcs11.URI).With(pkcs11.AttrSlotID, fmt.Sprint(tokens[1].SlotID))
	if got := open(t, m, bySlot.Exact(), nil, options(nil)).Token().Serial; got != tokens[1].Serial {
		t.Errorf("slot-id led to %s", got)
	}
	// A certificate on one of them settles it.
	k := open(t, m, tokens[0].URI().Exact(), nil, options(nil))
	if _, err := m.ImportCertificate(t.Context(), tokens[0].URI(), issue(t, k, "x"), options(nil)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, m, "pkcs11:token=twin;object=k", nil, options(nil)).Token().Serial; got != tokens[0].Serial {
		t.Errorf("the certificate led to %s", got)
	}
}

func TestNothingMatches(t *testing.T) {
	newHSM(t, "here")
	m := load(t)
	generate(t, m, "pkcs11:token=here;object=k", "ec-p256", options(nil))
	tests := []struct {
		uri   string
		is    error
		texts []string
	}{
		{"pkcs11:token=there", signer.ErrTokenNotFound, []string{"token=there", "token=here"}},
		{"pkcs11:slot-id=0", signer.ErrTokenNotFound, []string{"slot-id=0"}},
		{"pkcs11:token=here;colour=red", signer.ErrTokenNotFound, []string{"colour"}},
		{"pkcs11:token=here;object=nothing", signer.ErrKeyNotFound, []string{"object=nothing", "object=k"}},
		{"pkcs11:token=here;object=k;type=cert", signer.ErrCertificateNotFound, []string{"nothing"}},
		{"pkcs11:token=here;type=data", signer.ErrKeyNotFound, nil},
	}
	for _, test := range tests {
		t.Run(test.uri, func(t *testing.T) {
			_, err := m.OpenKey(t.Context(), uri(t, test.uri), nil, options(nil))
			checkError(t, err, test.is, test.texts...)
		})
	}
	_, err := m.Certificates(t.Context(), uri(t, "pkcs11:token=here;object=k"), options(nil))
	checkError(t, err, signer.ErrCertificateNotFound, "there is: nothing")
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.OpenKey(t.Context(), uri(t, "pkcs11:token=here"), &stranger.PublicKey, options(nil))
	checkError(t, err, signer.ErrKeyNotFound, "for the certificate", "object=k")
}

func TestGenerateRefusesExisting(t *testing.T) {
	newHSM(t, "again")
	m := load(t)
	generate(t, m, "pkcs11:token=again;object=k;id=%01", "ec-p256", options(nil))
	for _, u := range []string{"pkcs11:token=again;object=k;id=%01", "pkcs11:token=again;object=k", "pkcs11:token=again;id=%01"} {
		_, err := m.GenerateKey(t.Context(), uri(t, u), "ec-p256", options(nil))
		checkError(t, err, pkcs11.ErrExists, `"k"`)
	}
	_, err := m.GenerateKey(t.Context(), uri(t, "pkcs11:token=again"), "dsa", options(nil))
	if !errors.Is(err, signer.ErrUnsupportedKey) {
		t.Error(err)
	}
}

func TestImportCertificate(t *testing.T) {
	newHSM(t, "import")
	m := load(t)
	u := uri(t, "pkcs11:token=import;object=web")
	k := generate(t, m, u.Exact(), "ec-p256", options(nil))
	first, second := issue(t, k, "first"), issue(t, k, "second")
	c, err := m.ImportCertificate(t.Context(), u, first, options(nil))
	if err != nil || c.Label != "web" || !c.URI().Equal(k.URI()) {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := m.ImportCertificate(t.Context(), u, first, options(nil)); err != nil {
		t.Error("the same again:", err)
	}
	_, err = m.ImportCertificate(t.Context(), u, second, options(nil))
	checkError(t, err, pkcs11.ErrExists)
	o := options(nil)
	o.Replace = true
	if _, err := m.ImportCertificate(t.Context(), u, second, o); err != nil {
		t.Fatal(err)
	}
	certs, err := m.Certificates(t.Context(), u, cryptoki.Options{})
	if err != nil || len(certs) != 1 || !certs[0].X509.Equal(second) {
		t.Errorf("%v, %v", certs, err)
	}
}
