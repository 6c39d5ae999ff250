package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast-lab/internal/sts"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

const (
	accountID      = "123456789012"
	profileName    = "edge-workload"
	chainedProfile = "edge-chained"
	maxSessionLife = 12 * time.Hour
	leafLifetime   = 24 * time.Hour
)

// options say what lab to make.
type options struct {
	role        string
	region      string
	keyType     string
	subjectName pkix.Name
	sessionLife time.Duration
	latency     time.Duration
	faultQueue  []rolesanywheretest.Fault
}

func (o *options) check() error {
	switch {
	case !regexp.MustCompile(`^[\w+=,.@-]{1,64}$`).MatchString(o.role):
		return fmt.Errorf("--role %q is no role's name: letters, digits and +=,.@-_", o.role)
	case !regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+$`).MatchString(o.region):
		return fmt.Errorf("--region %q is no region's name, such as eu-central-1", o.region)
	case o.sessionLife < time.Second || o.sessionLife > maxSessionLife:
		return fmt.Errorf("--session-duration %v is not from 1s to %v", o.sessionLife, maxSessionLife)
	case o.latency < 0:
		return fmt.Errorf("--latency %v is negative", o.latency)
	}
	return nil
}

// A lab is a CA, Roles Anywhere, STS and the files that lead to them.
type lab struct {
	options
	holdfast string
	dir      string
	key      *workloadKey

	anywhere *rolesanywheretest.Server
	sts      *http.Server
	stsURL   string
	done     chan struct{} // closed with the lab: no answer waits longer

	anchorARN, profileARN, roleARN, chainedARN string
}

// newLab starts a lab; the caller closes it.
func newLab(o options, holdfast string) (l *lab, err error) {
	l = &lab{options: o, holdfast: holdfast, done: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = l.close() // err is what matters
			l = nil
		}
	}()
	// os.MkdirTemp makes it for this user alone, mode 0700.
	if l.dir, err = os.MkdirTemp("", "holdfast-lab-"); err != nil {
		return l, err
	}
	if l.dir, err = filepath.Abs(l.dir); err != nil {
		return l, err
	}
	ca, err := l.enroll()
	if err != nil {
		return l, err
	}
	if err := l.startAnywhere(ca); err != nil {
		return l, err
	}
	if err := l.startSTS(); err != nil {
		return l, err
	}
	return l, l.writeConfig()
}

// enroll makes the CA, the workload's key and its certificate.
func (l *lab) enroll() (*enroll.CA, error) {
	caKey, err := newKeyFile("ec-p256", l.path("ca.key"))
	if err != nil {
		return nil, fmt.Errorf("CA's key: %w", err)
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "holdfast lab CA"}})
	if err != nil {
		return nil, err
	}
	if l.key, err = newKey(l.keyType, l.dir); err != nil {
		return nil, err
	}
	request, err := enroll.NewRequest(l.key.signer, enroll.RequestOptions{Subject: l.subjectName})
	if err != nil {
		return nil, err
	}
	csr, err := enroll.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Sign(csr, enroll.LeafOptions{Lifetime: leafLifetime})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(l.path("ca.crt"), enroll.EncodePEM(ca.Certificate), 0o600); err != nil {
		return nil, err
	}
	if l.key.install != nil {
		if err := l.key.install(leaf); err != nil {
			return nil, fmt.Errorf("install the workload's certificate: %w", err)
		}
	}
	return ca, os.WriteFile(l.path("device.crt"), enroll.EncodePEM(leaf), 0o600)
}

func (l *lab) startAnywhere(ca *enroll.CA) error {
	listener, err := listen()
	if err != nil {
		return err
	}
	s := rolesanywheretest.NewUnstartedServer()
	s.Listener, s.Region, s.Account, s.Partition = listener, l.region, accountID, partition(l.region)
	s.Latency, s.MinSession = l.latency, time.Second
	s.Start()
	l.anywhere = s
	l.anchorARN, err = s.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "lab", Certificates: []*x509.Certificate{ca.Certificate}})
	if err != nil {
		return err
	}
	l.roleARN = s.AddRole(rolesanywheretest.Role{
		Name:               l.role,
		MaxSessionDuration: max(l.sessionLife, time.Hour),
		Trust:              rolesanywheretest.Trust{SourceARNs: []string{l.anchorARN}},
	})
	l.chainedARN = "arn:" + s.Partition + ":iam::" + accountID + ":role/" + l.role + "-chained"
	l.profileARN = s.AddProfile(rolesanywheretest.Profile{Name: "lab", RoleARNs: []string{l.roleARN}, Duration: l.sessionLife})
	s.Inject(l.faultQueue...)
	return nil
}

func (l *lab) startSTS() error {
	listener, err := listen()
	if err != nil {
		return err
	}
	handler := &sts.Handler{
		Region:      l.region,
		Lookup:      l.credentials,
		Roles:       []sts.Role{{ARN: l.chainedARN, ID: "AROA" + rand.Text()[:17]}},
		MinDuration: time.Second,
	}
	l.sts = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.delay(r.Context()); handler.ServeHTTP(w, r) }),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	l.stsURL = "http://" + listener.Addr().String()
	go l.sts.Serve(listener) // returns when close does
	return nil
}

// credentials tells the STS of what Roles Anywhere issued.
func (l *lab) credentials(accessKeyID string) (sts.Credentials, bool) {
	s, ok := l.anywhere.Session(accessKeyID)
	return sts.Credentials{
		AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey, SessionToken: s.SessionToken, Expiration: s.Expiration,
		ARN: s.AssumedRoleARN, UserID: s.AssumedRoleID, SourceIdentity: s.SourceIdentity,
	}, ok
}

func (l *lab) delay(ctx context.Context) {
	if l.latency == 0 {
		return
	}
	t := time.NewTimer(l.latency)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-l.done:
	}
}

// writeConfig writes the AWS config, and the credentials file, which stays
// empty. The chained session has a name of this lab's own: the AWS CLI keeps
// such sessions in the user's home, and finds them by role and name.
func (l *lab) writeConfig() error {
	command, err := l.credentialProcess()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`[profile %[1]s]
region = %[2]s
services = holdfast-lab
credential_process = %[3]s

[profile %[4]s]
region = %[2]s
services = holdfast-lab
role_arn = %[5]s
role_session_name = holdfast-lab-%[8]s
source_profile = %[1]s

[services holdfast-lab]
sts =
  endpoint_url = %[6]s
rolesanywhere =
  endpoint_url = %[7]s
`, profileName, l.region, command, chainedProfile, l.chainedARN, l.stsURL, l.anywhere.URL, rand.Text()[:8])
	if err := os.WriteFile(l.path("config"), []byte(text), 0o600); err != nil {
		return err
	}
	return os.WriteFile(l.path("credentials"), nil, 0o600)
}

func (l *lab) credentialProcess() (string, error) {
	args := []string{l.holdfast, "credential-process",
		"--certificate", l.certificate(), "--private-key", l.key.reference,
		"--trust-anchor-arn", l.anchorARN, "--profile-arn", l.profileARN, "--role-arn", l.roleARN,
		"--endpoint", l.anywhere.URL}
	// A shorter session is the profile's doing: no client asks for less.
	if l.sessionLife >= 15*time.Minute {
		args = append(args, "--session-duration", strconv.Itoa(int(l.sessionLife/time.Second)))
	}
	return joinCommand(append(args, l.key.flags...))
}

// certificate is what holdfast is given as --certificate: where the key holds
// it, the key's own reference.
func (l *lab) certificate() string {
	if l.key.install != nil {
		return l.key.reference
	}
	return l.path("device.crt")
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// close stops the servers and deletes the lab's files.
func (l *lab) close() error {
	close(l.done)
	var errs []error
	if l.sts != nil {
		errs = append(errs, l.sts.Close())
	}
	if l.anywhere != nil {
		l.anywhere.Close()
	}
	if l.key != nil && l.key.close != nil {
		errs = append(errs, l.key.close())
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// partition returns the partition that a region lies in.
func partition(region string) string {
	for prefix, name := range map[string]string{"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"} {
		if strings.HasPrefix(region, prefix) {
			return name
		}
	}
	return "aws"
}

func listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen on the loopback: %w", err)
	}
	return listener, nil
}
