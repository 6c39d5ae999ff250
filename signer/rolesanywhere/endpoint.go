package rolesanywhere

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// resolveEndpoint returns where to send and the region to sign for. They are
// two things: a "-fips" pseudo-region selects the FIPS endpoint and must never
// reach the signing scope.
func resolveEndpoint(o *Options, anchorRegion string) (endpoint *url.URL, region string, err error) {
	region, fips := anchorRegion, o.UseFIPS
	if o.Region != "" {
		region = o.Region
	}
	if real := trimFIPS(region); real != region {
		region, fips = real, true
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, "", signer.WithHint(
				fmt.Errorf("%w: endpoint %q is no http or https URL", ErrInput, redactURL(o.Endpoint)),
				"it looks like https://rolesanywhere.eu-west-1.amazonaws.com")
		}
		return u, region, nil
	}
	if !isHostLabel(region) {
		return nil, "", signer.WithHint(fmt.Errorf("%w: region %q", ErrInput, region), "a region looks like eu-west-1")
	}
	suffix := partitionOf(region).suffix
	if o.UseDualStack {
		suffix = partitionOf(region).dualStack
	}
	host := service
	if fips {
		host += "-fips"
	}
	return &url.URL{Scheme: "https", Host: host + "." + region + "." + suffix}, region, nil
}

type partition struct {
	prefix    string // of its regions' names
	suffix    string
	dualStack string
}

// partitionOf follows the endpoint rules of the AWS SDK, in which every
// partition has FIPS and dual-stack endpoints and an unknown region counts to
// aws. The rules themselves are in service/rolesanywhere, whose import alone
// adds a fifth to the start-up time of a program; a test holds the two side by
// side.
func partitionOf(region string) partition {
	for _, p := range []partition{
		{"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
		{"eusc-de-", "amazonaws.eu", "api.amazonwebservices.eu"},
		{"us-iso-", "c2s.ic.gov", "api.aws.ic.gov"},
		{"us-isob-", "sc2s.sgov.gov", "api.aws.scloud"},
		{"eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"},
		{"us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p
		}
	}
	return partition{"", "amazonaws.com", "api.aws"} // aws and aws-us-gov
}

func isHostLabel(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
}

func trimFIPS(region string) string {
	region = strings.TrimPrefix(region, "fips-")
	return strings.TrimSuffix(region, "-fips")
}

// redactURL drops what may be a password from a URL that goes into an error.
func redactURL(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	if before, after, ok := strings.Cut(s, "@"); ok && before != "" {
		return "…@" + after
	}
	return s
}
