package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// sessionFlags say which session to ask for, and how to reach AWS.
type sessionFlags struct {
	identityFlags
	in rolesanywhere.SessionInput

	duration    seconds
	timeout     seconds
	region      string
	endpoint    string
	noVerifySSL bool
}

func (f *sessionFlags) add(fs *pflag.FlagSet) {
	f.identityFlags.add(fs)
	f.duration = seconds(rolesanywhere.DefaultDuration)
	f.timeout = seconds(rolesanywhere.DefaultTimeout)
	fs.StringVar(&f.in.RoleARN, "role-arn", "", "`ARN` of the role to assume")
	fs.StringVar(&f.in.ProfileARN, "profile-arn", "", "`ARN` of the Roles Anywhere profile")
	fs.StringVar(&f.in.TrustAnchorARN, "trust-anchor-arn", "", "`ARN` of the trust anchor")
	fs.Var(&f.duration, "session-duration", "life of the credentials, 900 to 43200")
	fs.StringVar(&f.in.RoleSessionName, "role-session-name", "", "`name` of the session; the profile must allow it (default: the certificate's serial)")
	fs.StringVar(&f.region, "region", "", "signing `region` (default: the trust anchor's)")
	fs.StringVar(&f.endpoint, "endpoint", "", "`URL` of the service (default: AWS_ENDPOINT_URL_ROLESANYWHERE, else the region's)")
	fs.BoolVar(&f.noVerifySSL, "no-verify-ssl", false, "accept any server certificate (dangerous)")
	fs.Bool("with-proxy", true, "accepted and not needed: HTTPS_PROXY and NO_PROXY are always honoured")
	fs.Var(&f.timeout, "timeout", "give up after this long, retries included")
}

func (a *app) credentialProcess() *cobra.Command {
	var f sessionFlags
	var cf cacheFlags
	cmd := &cobra.Command{
		Use:   "credential-process",
		Short: "Print credentials for an AWS SDK or CLI (credential_process)",
		Long: `Makes one IAM Roles Anywhere session and prints its credentials as the JSON
that a credential_process in ~/.aws/config returns. A failure is one line on
stderr and nothing on stdout. Credentials are kept for the next run where that
is safe; --cache says where.

  [profile edge]
  credential_process = holdfast credential-process --certificate /etc/edge/device.crt --private-key /etc/edge/device.key --trust-anchor-arn ARN --profile-arn ARN --role-arn ARN

` + exitCodesHelp,
		Args:        noArgs,
		Annotations: map[string]string{foldsErrors: "true"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runCredentialProcess(cmd, &f, &cf)
		},
	}
	f.add(cmd.Flags())
	cf.add(cmd.Flags())
	return cmd
}

func (a *app) runCredentialProcess(cmd *cobra.Command, f *sessionFlags, cf *cacheFlags) error {
	if err := f.checkFlags(cmd); err != nil {
		return err
	}
	if err := cf.check(cmd); err != nil {
		return err
	}
	log := a.setDebug(f.debug)
	session, err := a.cachedSession(cmd.Context(), cf, f, log, func(ctx context.Context) (*rolesanywhere.Session, error) {
		return a.freshSession(ctx, f, log)
	})
	if err != nil {
		return err
	}
	return a.printCredentials(session)
}

// freshSession opens the identity for one session.
func (a *app) freshSession(ctx context.Context, f *sessionFlags, log *slog.Logger) (*rolesanywhere.Session, error) {
	expected := a.expectTPMKey(ctx, f)
	// The deadline covers the key's hardware too, unless a person is to type.
	if (expected || !f.asksPerson()) && f.timeout > 0 {
		var cancel context.CancelFunc
		limit := time.Duration(f.timeout)
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &rolesanywhere.DeadlineError{After: limit})
		defer cancel()
	}
	a.oneSignature = true
	id, err := a.openIdentity(ctx, &f.identityFlags)
	if err != nil {
		return nil, err
	}
	defer id.Close()
	return a.createSession(ctx, f, id, log)
}

func (a *app) createSession(ctx context.Context, f *sessionFlags, id *signer.Identity, log *slog.Logger) (*rolesanywhere.Session, error) {
	o, err := a.clientOptions(f, log)
	if err != nil {
		return nil, err
	}
	client, err := rolesanywhere.New(id, o)
	if err != nil {
		return nil, err
	}
	in := f.in
	in.Duration = time.Duration(f.duration)
	return client.CreateSession(ctx, in)
}

// clientOptions reads the flags, and the variables that every AWS SDK reads.
func (a *app) clientOptions(f *sessionFlags, log *slog.Logger) (rolesanywhere.Options, error) {
	o := rolesanywhere.Options{
		Region:    f.region,
		Endpoint:  f.endpoint,
		Timeout:   time.Duration(f.timeout),
		UserAgent: "holdfast/" + versionString(),
		Logger:    log,
	}
	if o.Timeout <= 0 {
		return o, &classed{fmt.Errorf("--timeout %s: give a time above zero", f.timeout.String()), errUsage}
	}
	ignoreURLs, err := envBool("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
	if err != nil {
		return o, err
	}
	for _, name := range []string{"AWS_ENDPOINT_URL_ROLESANYWHERE", "AWS_ENDPOINT_URL"} {
		if o.Endpoint == "" && !ignoreURLs {
			o.Endpoint = os.Getenv(name)
		}
	}
	if o.UseFIPS, err = envBool("AWS_USE_FIPS_ENDPOINT"); err != nil {
		return o, err
	}
	if o.UseDualStack, err = envBool("AWS_USE_DUALSTACK_ENDPOINT"); err != nil {
		return o, err
	}
	t := &o.TransportOptions
	if f.noVerifySSL {
		a.say.Warn("--no-verify-ssl: whoever answers in AWS's place is believed")
		t.InsecureSkipVerify = true
	}
	// Reading a bundle takes longer than the rest of the start: not for http.
	if bundle := os.Getenv("AWS_CA_BUNDLE"); bundle != "" && !strings.HasPrefix(o.Endpoint, "http://") {
		text, err := os.ReadFile(bundle)
		if err != nil {
			return o, fmt.Errorf("AWS_CA_BUNDLE: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return o, signer.WithHint(fmt.Errorf("AWS_CA_BUNDLE: %s holds no PEM certificate", bundle), "point it to a PEM file of CA certificates, or unset it")
		}
	}
	return o, nil
}

func envBool(name string) (bool, error) {
	text := os.Getenv(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, &classed{fmt.Errorf("environment variable %s=%q: give true or false", name, text), errUsage}
	}
	return b, nil
}

// printCredentials writes the credential_process document in one write.
func (a *app) printCredentials(s *rolesanywhere.Session) error {
	c := s.Credentials
	doc, err := json.Marshal(struct {
		Version         int
		AccessKeyId     string //nolint:revive // the protocol's spelling
		SecretAccessKey string
		SessionToken    string
		Expiration      string
		AccountId       string `json:",omitempty"` //nolint:revive // the protocol's spelling
	}{1, c.AccessKeyID, c.SecretAccessKey, c.SessionToken, c.Expires.UTC().Truncate(time.Second).Format(time.RFC3339), c.AccountID})
	if err != nil {
		return err
	}
	if _, err := a.stdout.Write(append(doc, '\n')); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}
