package rolesanywhere_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

// A Go program gets its credentials through Roles Anywhere. The endpoint, the
// CA and the key are made up here; outside of tests the key is opened from a
// file or a token, and Options are left empty.
func ExampleProvider() {
	ctx := context.Background()
	key, err := software.Generate("ec-p256")
	if err != nil {
		log.Fatal(err)
	}
	ca, err := enroll.NewCA(key, enroll.CAOptions{Subject: pkix.Name{CommonName: "CA"}})
	if err != nil {
		log.Fatal(err)
	}
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "edge"}})
	if err != nil {
		log.Fatal(err)
	}
	aws := rolesanywheretest.NewServer()
	defer aws.Close()
	anchor, err := aws.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "edge", Certificates: []*x509.Certificate{ca.Certificate}})
	if err != nil {
		log.Fatal(err)
	}
	role := aws.AddRole(rolesanywheretest.Role{Name: "edge"})
	profile := aws.AddProfile(rolesanywheretest.Profile{Name: "edge", RoleARNs: []string{role}})

	id, err := signer.New(key, leaf, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer id.Close()
	client, err := rolesanywhere.New(id, rolesanywhere.Options{Endpoint: aws.URL})
	if err != nil {
		log.Fatal(err)
	}
	provider := rolesanywhere.NewProvider(client, rolesanywhere.SessionInput{
		TrustAnchorARN: anchor, ProfileARN: profile, RoleARN: role,
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"), config.WithCredentialsProvider(provider))
	if err != nil {
		log.Fatal(err)
	}
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(credentials.Source, credentials.AccountID, credentials.HasKeys())
	// Output: RolesAnywhere 123456789012 true
}
