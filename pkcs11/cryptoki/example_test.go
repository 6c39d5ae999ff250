//go:build cgo

package cryptoki_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"time"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/pkcs11/cryptoki"
	"github.com/holdfast-iam/holdfast/signer"
)

// A key on a token, with its certificate and the chain that lie beside it,
// authenticates a TLS client.
func Example() {
	ctx := context.Background()
	u, err := pkcs11.Parse("pkcs11:token=prod;object=web?pin-source=/run/secrets/pin&module-name=softhsm2")
	if err != nil {
		log.Fatal(err)
	}
	path, err := pkcs11.FindModule(u, "")
	if err != nil {
		log.Fatal(err, signer.Hint(err))
	}
	m, err := cryptoki.Load(path)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	key, err := m.OpenKey(ctx, u, nil, cryptoki.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer key.Close()
	certs, err := key.Certificates(ctx)
	if err != nil {
		log.Fatal(err)
	}
	leaf, others := signer.SelectLeaf(key.Public(), pkcs11.X509(certs), time.Now())
	id, err := signer.New(key, leaf, others)
	if err != nil {
		log.Fatal(err)
	}
	_ = tls.Config{Certificates: []tls.Certificate{id.TLSCertificate()}}
}

// What there is, with URIs to paste.
func ExampleModule_List() {
	m, err := cryptoki.Load("/usr/lib/softhsm/libsofthsm2.so")
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	all, err := m.List(context.Background(), nil, cryptoki.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, contents := range all {
		for _, k := range contents.Keys {
			fmt.Println(k.Algorithm, k.URI())
		}
	}
}
