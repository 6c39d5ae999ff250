package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/metadata"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// A sessionFetch makes a role's sessions, one attempt a call: when to try again
// is the role's to decide.
type sessionFetch struct {
	in      rolesanywhere.SessionInput
	options rolesanywhere.Options
	keeper  *identityKeeper

	mu   sync.Mutex
	made metadata.Provenance // the latest session's
}

func newSessionFetch(a *app, f *sessionFlags, k *identityKeeper, log *slog.Logger) (*sessionFetch, error) {
	s := &sessionFetch{in: f.in, keeper: k}
	s.in.Duration = time.Duration(f.duration)
	var err error
	s.options, err = a.clientOptions(f, log)
	s.options.Retryer = aws.NopRetryer{}
	return s, err
}

// errChecked ends a CreateSession that is only to check its input.
var errChecked = errors.New("checked")

// checkOnly is the retryer that does so.
type checkOnly struct{ aws.NopRetryer }

func (checkOnly) GetAttemptToken(context.Context) (func(error) error, error) { return nil, errChecked }

// check opens the identity and finds whatever is wrong without AWS: an ARN, a
// region, a certificate that has expired. No signature is made.
func (s *sessionFetch) check(ctx context.Context) error {
	o := s.options
	o.Retryer = checkOnly{}
	_, err := s.create(ctx, o)
	if errors.Is(err, errChecked) {
		return nil
	}
	return err
}

func (s *sessionFetch) fetch(ctx context.Context) (*rolesanywhere.Session, error) {
	return s.create(ctx, s.options)
}

func (s *sessionFetch) create(ctx context.Context, o rolesanywhere.Options) (session *rolesanywhere.Session, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, &rolesanywhere.DeadlineError{After: o.Timeout})
	defer cancel()
	id, done, err := s.keeper.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { done(err) }()
	client, err := rolesanywhere.New(id, o)
	if err != nil {
		return nil, err
	}
	if session, err = client.CreateSession(ctx, s.in); err != nil {
		return nil, err
	}
	cert := id.Certificate()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = metadata.Provenance{CertificateSerial: serial(cert), CertificateExpiry: cert.NotAfter, Key: s.keeper.keyRef.String()}
	return session, nil
}

func (s *sessionFetch) provenance() metadata.Provenance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made
}

func (s *sessionFetch) close() {
	if t, ok := s.options.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
