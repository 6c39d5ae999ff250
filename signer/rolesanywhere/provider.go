package rolesanywhere

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// ProviderName is the Source of credentials made here.
const ProviderName = "RolesAnywhere"

// A Provider is an aws.CredentialsProvider: each Retrieve makes one session.
// Wrap it in aws.NewCredentialsCache, as the SDK does with every provider that
// it is given through config.WithCredentialsProvider.
type Provider struct {
	client *Client
	in     SessionInput
}

var _ aws.CredentialsProvider = (*Provider)(nil)

// NewProvider returns a provider of the sessions that in names.
func NewProvider(c *Client, in SessionInput) *Provider { return &Provider{c, in} }

// Retrieve calls CreateSession.
func (p *Provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	s, err := p.client.CreateSession(ctx, p.in)
	if err != nil {
		return aws.Credentials{}, err
	}
	return s.Credentials, nil
}
