// Package rolesanywhere turns a [signer.Identity] into short-lived AWS
// credentials through IAM Roles Anywhere.
//
// A Go program that uses aws-sdk-go-v2 needs three lines more than it has:
//
//	client, err := rolesanywhere.New(identity, rolesanywhere.Options{})
//	provider := rolesanywhere.NewProvider(client, rolesanywhere.SessionInput{
//		TrustAnchorARN: "arn:aws:rolesanywhere:eu-west-1:111122223333:trust-anchor/…",
//		ProfileARN:     "arn:aws:rolesanywhere:eu-west-1:111122223333:profile/…",
//		RoleARN:        "arn:aws:iam::111122223333:role/edge",
//	})
//	cfg, err := config.LoadDefaultConfig(ctx, config.WithCredentialsProvider(provider))
//
// The [Provider] keeps the session: any number of goroutines share one
// CreateSession, and it is renewed in the background before it ends. While AWS
// is away, the last good credentials are handed out until they expire, and
// CreateSession is tried with back-off. [Provider.Close] ends that; a program
// that lives as long as its provider need not call it.
//
// [Client.CreateSession] makes one session and tells more about it than the
// credentials. [Sign] is the AWS4-X509 signature alone, for any request.
//
// # What it takes care of
//
// Endpoint, region and partition follow from the trust anchor's ARN by the
// AWS SDK's own rules. Proxies are taken from the environment, TLS is at least
// 1.2, redirects are not followed. Passing faults (dropped connections,
// throttling, 5xx) are retried by the SDK's standard retryer within one total
// deadline. Every signature is verified against the certificate before it is
// sent, so that a faulty token is told from a refusal by AWS. What AWS refuses
// comes back as an [Error], which carries a hint that [signer.Hint] returns.
package rolesanywhere
