package tpm_test

import (
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

// certify runs a command that wants the ADMIN role. No key has to sign for it.
func certify(l *tpm.Loaded) error {
	_, err := tpm2.Certify{
		ObjectHandle: l.Auth, SignHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHNull, Auth: tpm2.PasswordAuth(nil)},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(l.TPM)
	return err
}

func TestWithAdmin(t *testing.T) {
	const secret = "sesame, sixteen or more"
	ctx := testContext(t)
	for name, c := range map[string]struct {
		opts   tpm.CreateOptions
		pcrs   bool
		unsure bool // the key file does not say whether there is a password
		asks   int
	}{
		"no password":       {},
		"password":          {opts: tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))}, asks: 1},
		"password, guarded": {opts: tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret)), DA: true}, asks: 1},
		"PCRs":              {pcrs: true},
		"PCRs, guarded":     {opts: tpm.CreateOptions{DA: true}, pcrs: true},
		"PCRs, password that they do not ask for": {opts: tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))}, pcrs: true, asks: 1},
		"the same, guarded":                       {opts: tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret)), DA: true}, pcrs: true, asks: 1},
		"the same, and the file is silent":        {opts: tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))}, pcrs: true, unsure: true, asks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := start(t)
			var f *tpm.KeyFile
			if c.pcrs {
				f = boundTo(t, d, c.opts)
			} else {
				f = create(t, d, c.opts)
			}
			if c.unsure {
				f.EmptyAuth = nil
			}
			asked := 0
			k := openKey(t, d, f, tpm.Options{Auth: password(secret, &asked)})
			checkSigns(t, k)
			for range 2 {
				asked = 0
				if err := k.WithAdmin(ctx, certify); err != nil || asked > c.asks {
					t.Errorf("asked %d times, %v", asked, err)
				}
				checkSigns(t, k)
			}
			if l := lockout(t, d); l.Failed != 0 {
				t.Errorf("%d lock-out tries were burnt", l.Failed)
			}
			if c.opts.DA {
				return // a reset may cost a try
			}
			s.Reset()
			if err := k.WithAdmin(ctx, certify); err != nil {
				t.Errorf("after a reset: %v", err)
			}
			checkSigns(t, k)
		})
	}
}

func TestWithAdminRefused(t *testing.T) {
	const secret = "sesame, sixteen or more"
	s, d := start(t)
	ctx := testContext(t)
	f := create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))})
	if err := openKey(t, d, f, tpm.Options{Auth: password("another word than this", nil)}).WithAdmin(ctx, certify); !errors.Is(err, signer.ErrPINIncorrect) {
		t.Errorf("with a wrong password: %v", err)
	}
	f.Public.ObjectAttributes.AdminWithPolicy = true
	f = reparse(t, f)
	if err := openKey(t, d, f, tpm.Options{Auth: password(secret, nil)}).WithAdmin(ctx, certify); !errors.Is(err, signer.ErrUnsupportedKey) || signer.Hint(err) == "" {
		t.Errorf("a key with adminWithPolicy: %v", err)
	}

	// That another object's password is wrong says nothing of the key's.
	s.Run("tpm2_changeauth", "-c", "endorsement", "sesame")
	k := openKey(t, d, create(t, d, tpm.CreateOptions{Auth: signer.NewSecret([]byte(secret))}), tpm.Options{Auth: password(secret, nil)})
	primary := func(l *tpm.Loaded, auth tpm.AuthFunc) error {
		session, err := tpm.HierarchySession(l.TPM, tpm2.TPMRHEndorsement, auth)
		if err != nil {
			return err
		}
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: session}, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(l.TPM)
		if err == nil {
			_, err = tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(l.TPM)
		}
		return err
	}
	for _, use := range []func(func(*tpm.Loaded) error) error{
		func(fn func(*tpm.Loaded) error) error { return k.WithAdmin(ctx, fn) },
		func(fn func(*tpm.Loaded) error) error { return k.WithHandle(ctx, fn) },
	} {
		for _, auth := range []tpm.AuthFunc{nil, password("wrong", nil)} {
			if err := use(func(l *tpm.Loaded) error { return primary(l, auth) }); !errors.Is(err, tpm2.TPMRCBadAuth) && !errors.Is(err, tpm2.TPMRCAuthFail) {
				t.Errorf("without the hierarchy's password: %v", err)
			}
			checkSigns(t, k)
		}
		if err := use(func(l *tpm.Loaded) error { return primary(l, password("sesame", nil)) }); err != nil {
			t.Errorf("with the hierarchy's password: %v", err)
		}
	}
	if err := k.WithAdmin(ctx, certify); err != nil {
		t.Error(err)
	}
	if _, err := tpm.HierarchySession(s, tpm2.TPMRHEndorsement, nil); err == nil {
		t.Error("a session on what is no use of a Device")
	}
}
