package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/awsfiles"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

func (a *app) update() *cobra.Command {
	var f sessionFlags
	u := &updater{app: a, f: &f}
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Keep a profile of the shared credentials file up to date",
		Long: `Writes the credentials of a session into a profile of ~/.aws/credentials
(AWS_SHARED_CREDENTIALS_FILE) and replaces them before they expire, for programs
that know neither credential_process nor metadata endpoints. The rest of the file
stays as it is, byte for byte, and at no moment is the file not whole. A failure
is said and tried again, once there was a first success; --once ends after one.

` + exitCodesHelp,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkFlags(cmd); err != nil {
				return err
			}
			u.log = a.setDebug(f.debug)
			return u.run(cmd.Context())
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&u.profile, "profile", "default", "`name` of the profile to write")
	cmd.Flags().BoolVar(&u.once, "once", false, "write once and end")
	return cmd
}

// An updater keeps one profile alive.
type updater struct {
	*app
	f       *sessionFlags
	profile string
	once    bool
	log     *slog.Logger

	path string
	id   *signer.Identity // kept open if opening it asks a person
}

const (
	// updateBefore is how long before they expire credentials are replaced.
	updateBefore = 5 * time.Minute

	firstBackOff = 5 * time.Second
	maxBackOff   = 5 * time.Minute
)

func (u *updater) run(ctx context.Context) (err error) {
	if u.path, err = awsfiles.CredentialsPath(); err != nil {
		return err
	}
	defer func() {
		if u.id != nil {
			u.id.Close()
		}
	}()
	var s *rolesanywhere.Session // not nil: made and not written yet
	written, failures := false, 0
	for {
		err = nil
		if s == nil || time.Until(s.Credentials.Expires) < updateBefore {
			s, err = u.session(ctx)
		}
		begin := time.Now()
		if err == nil {
			err = awsfiles.SetProfile(ctx, u.path, u.profile, settings(s))
		}
		var next time.Time
		switch {
		case err == nil:
			u.wrote(s, !written)
			if u.once {
				return nil
			}
			next = replaceAt(begin, s.Credentials.Expires)
			s, written, failures = nil, true, 0
		case u.once || !written && exitCode(err) != exitPassing:
			return err
		case ctx.Err() != nil:
			return nil
		default:
			failures++
			pause := backOff(failures)
			next = time.Now().Add(pause)
			u.say.Warn(fmt.Sprintf("profile %s: %v; trying again in %v", u.profile, err, pause.Round(time.Second)))
		}
		if !sleepUntil(ctx, next) {
			return nil
		}
	}
}

// session opens the identity anew each time, so that a renewed certificate is
// taken, unless that may ask a person.
func (u *updater) session(ctx context.Context) (*rolesanywhere.Session, error) {
	if !u.f.asksPerson() {
		return u.freshSession(ctx, u.f, u.log)
	}
	if u.id == nil {
		id, err := u.openIdentity(ctx, &u.f.identityFlags)
		if err != nil {
			return nil, err
		}
		u.id = id
	}
	return u.createSession(ctx, u.f, u.id, u.log)
}

func settings(s *rolesanywhere.Session) []awsfiles.Setting {
	c := s.Credentials
	return []awsfiles.Setting{
		{Key: "aws_access_key_id", Value: c.AccessKeyID},
		{Key: "aws_secret_access_key", Value: c.SecretAccessKey},
		{Key: "aws_session_token", Value: c.SessionToken},
		// botocore still believes the old name, and it first.
		{Key: "aws_security_token", Value: c.SessionToken, IfPresent: true},
	}
}

func (u *updater) wrote(s *rolesanywhere.Session, first bool) {
	u.say.Say("profile %s in %s: credentials until %s", u.profile, u.path, s.Credentials.Expires.UTC().Format(time.RFC3339))
	if info, err := os.Stat(u.path); first && err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		u.say.Warn(fmt.Sprintf("%s: others may read it (mode %04o): chmod 600 it", u.path, info.Mode().Perm()))
	}
}

// replaceAt is 5 minutes before the end, or a third of a short session, and up
// to a minute earlier, so that a fleet started at once does not stay in step.
func replaceAt(begin, expires time.Time) time.Time {
	life := expires.Sub(begin)
	if life <= 0 {
		return begin.Add(maxBackOff) // the clock is wrong: no reason for a storm
	}
	before := min(updateBefore, life/3)
	return expires.Add(-before - rand.N(max(1, min(time.Minute, life/10))))
}

func backOff(failures int) time.Duration {
	d := firstBackOff << min(failures-1, 10)
	d = min(d, maxBackOff)
	return d + rand.N(d/5)
}

// sleepUntil sleeps by the clock on the wall, which a suspended machine's
// timers do not follow. It returns false if ctx ends before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	t = t.Round(0)
	for {
		left := t.Sub(time.Now().Round(0))
		if left <= 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(left, time.Minute)):
		}
	}
}
