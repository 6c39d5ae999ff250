package rolesanywhere

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/rolesanywhere"
)

func TestResolveEndpoint(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      Options
		anchor string
		url    string
		region string
	}{
		{"aws", Options{}, "eu-west-1", "https://rolesanywhere.eu-west-1.amazonaws.com", "eu-west-1"},
		{"aws-us-gov", Options{}, "us-gov-west-1", "https://rolesanywhere.us-gov-west-1.amazonaws.com", "us-gov-west-1"},
		{"aws-cn", Options{}, "cn-north-1", "https://rolesanywhere.cn-north-1.amazonaws.com.cn", "cn-north-1"},
		{"aws-eusc", Options{}, "eusc-de-east-1", "https://rolesanywhere.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"},
		{"aws-iso", Options{}, "us-iso-east-1", "https://rolesanywhere.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"},
		{"aws-iso-b", Options{}, "us-isob-east-1", "https://rolesanywhere.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"},
		{"aws-iso-e", Options{}, "eu-isoe-west-1", "https://rolesanywhere.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1"},
		{"aws-iso-f", Options{}, "us-isof-south-1", "https://rolesanywhere.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1"},
		{"fips", Options{UseFIPS: true}, "us-east-1", "https://rolesanywhere-fips.us-east-1.amazonaws.com", "us-east-1"},
		{"fips pseudo-region", Options{Region: "us-east-1-fips"}, "us-east-1", "https://rolesanywhere-fips.us-east-1.amazonaws.com", "us-east-1"},
		{"fips pseudo-region, prefix", Options{Region: "fips-us-east-2"}, "us-east-1", "https://rolesanywhere-fips.us-east-2.amazonaws.com", "us-east-2"},
		{"dual-stack", Options{UseDualStack: true}, "eu-west-1", "https://rolesanywhere.eu-west-1.api.aws", "eu-west-1"},
		{"dual-stack cn", Options{UseDualStack: true}, "cn-north-1", "https://rolesanywhere.cn-north-1.api.amazonwebservices.com.cn", "cn-north-1"},
		{"dual-stack fips", Options{UseDualStack: true, UseFIPS: true}, "us-east-1", "https://rolesanywhere-fips.us-east-1.api.aws", "us-east-1"},
		{"region beats the anchor's", Options{Region: "eu-north-1"}, "eu-west-1", "https://rolesanywhere.eu-north-1.amazonaws.com", "eu-north-1"},
		{"endpoint keeps the region", Options{Endpoint: "http://127.0.0.1:8080"}, "eu-west-1", "http://127.0.0.1:8080", "eu-west-1"},
		{"endpoint with a pseudo-region", Options{Endpoint: "https://proxy.example/ra", Region: "us-gov-west-1-fips"}, "eu-west-1", "https://proxy.example/ra", "us-gov-west-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, region, err := resolveEndpoint(&c.o, c.anchor)
			if err != nil {
				t.Fatal(err)
			}
			if u.String() != c.url || region != c.region {
				t.Errorf("%s for %s, want %s for %s", u, region, c.url, c.region)
			}
		})
	}
}

func TestBadEndpoints(t *testing.T) {
	for _, endpoint := range []string{"127.0.0.1:8080", "ftp://host", "https://", "https://user:sesame@host/", "https://h/?q=1", "::"} {
		_, _, err := resolveEndpoint(&Options{Endpoint: endpoint}, "eu-west-1")
		if !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v, want ErrInput", endpoint, err)
		}
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
}

// TestEndpointsAreTheSDKs asks the SDK's own rules for every partition's
// regions, today's and invented ones.
func TestEndpointsAreTheSDKs(t *testing.T) {
	var regions []string
	for _, area := range []string{
		"us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx", // aws
		"cn", "us-gov", "us-iso", "us-isob", "eu-isoe", "us-isof", "eusc-de", "zz",
	} {
		for _, at := range []string{"east", "west", "north", "south", "central", "northeast", "southeast"} {
			for n := range 4 {
				regions = append(regions, area+"-"+at+"-"+strconv.Itoa(n+1))
			}
		}
	}
	for _, region := range regions {
		for _, fips := range []bool{false, true} {
			for _, dual := range []bool{false, true} {
				want, err := sdk.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), sdk.EndpointParameters{
					Region: aws.String(region), UseFIPS: aws.Bool(fips), UseDualStack: aws.Bool(dual),
				})
				if err != nil {
					t.Fatal(err)
				}
				got, _, err := resolveEndpoint(&Options{UseFIPS: fips, UseDualStack: dual}, region)
				if err != nil || got.String() != want.URI.String() {
					t.Errorf("%s, FIPS %v, dual-stack %v: %v, %v; the SDK has %s", region, fips, dual, got, err, want.URI.String())
				}
			}
		}
	}
}

func TestBadRegions(t *testing.T) {
	for _, region := range []string{"evil.example/", "EU-WEST-1", "eu west", "-", "é"} {
		if _, _, err := resolveEndpoint(&Options{Region: region}, "eu-west-1"); !errors.Is(err, ErrInput) {
			t.Errorf("region %q: %v, want ErrInput", region, err)
		}
	}
}
