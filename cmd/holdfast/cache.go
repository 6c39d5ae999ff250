package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/cache"
	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere"
)

// cacheFlags say where credentials are kept between runs.
type cacheFlags struct {
	mode string
	off  bool
}

// cacheEnv is what --cache is without being given.
const cacheEnv = "HOLDFAST_CACHE"

func (f *cacheFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.mode, "cache", "", "where credentials are kept between runs: auto (the Linux kernel keyring, unless the key asks a person for a passphrase, PIN or touch, or a container shares the keyring), keyring, file (mode 0600 in the runtime directory), tpm (on the disk, sealed to the TPM: it outlasts a restart) or off (default $"+cacheEnv+", else auto)")
	fs.BoolVar(&f.off, "no-cache", false, "the same as --cache off")
}

func (f *cacheFlags) check(cmd *cobra.Command) error {
	if f.off && f.mode != "" {
		return usageError(cmd, errors.New("--cache and --no-cache do not go together"))
	}
	from := "--cache"
	if f.off {
		f.mode = "off"
	} else if f.mode == "" {
		f.mode, from = cmp.Or(os.Getenv(cacheEnv), "auto"), "environment variable "+cacheEnv
	}
	if !slices.Contains([]string{"auto", "keyring", "file", "tpm", "off"}, f.mode) {
		return usageError(cmd, fmt.Errorf("%s: %q is not auto, keyring, file, tpm or off", from, f.mode))
	}
	return nil
}

// open returns the store that the flags ask for; nil means none.
func (f *cacheFlags) open(ctx context.Context, a *app, id *identityFlags) (cache.Store, error) {
	switch f.mode {
	case "keyring":
		return openKeyring()
	case "file":
		return openFiles()
	case "tpm":
		return a.openSealed(ctx, id)
	case "auto":
		if cache.KeyringIsPrivate() {
			return openKeyring()
		}
	}
	return nil, nil
}

// These two keep a nil pointer from becoming a Store that is not nil.
func openKeyring() (cache.Store, error) {
	k, err := cache.OpenKeyring()
	if err != nil {
		return nil, err
	}
	return k, nil
}

func openFiles() (cache.Store, error) {
	dir, err := cache.RuntimeDir()
	if err != nil {
		return nil, err
	}
	return &cache.Files{Dir: dir}, nil
}

// cachedSession is a session out of the cache, or one that fresh makes. Before
// fresh is called nothing is opened but the certificate's file.
func (a *app) cachedSession(ctx context.Context, cf *cacheFlags, f *sessionFlags, log *slog.Logger, fresh func(context.Context) (*rolesanywhere.Session, error)) (*rolesanywhere.Session, error) {
	store, err := cf.open(ctx, a, &f.identityFlags)
	if err != nil {
		if cf.mode != "auto" {
			a.say.Warn("--cache " + cf.mode + ": " + err.Error())
		}
		log.Debug("no cache", "error", err.Error())
	}
	if store == nil {
		return fresh(ctx)
	}
	told := cf.mode != "auto"
	key, err := f.cacheKey(told)
	if err != nil {
		log.Debug("not cached", "error", err.Error())
		return fresh(ctx)
	}
	c := &cache.Cache{Store: store, Log: log}
	if entry, ok := c.Lookup(key); ok {
		return sessionOf(entry), nil
	}
	c.Patient = f.asksPerson()
	if c.Patient && !told {
		log.Debug("not cached: the key may ask a person")
		return fresh(ctx)
	}
	c.LockDir = cache.LockDir()
	entry, err := c.Get(ctx, key, func(ctx context.Context) (cache.Entry, error) {
		s, err := fresh(ctx)
		if err != nil {
			return cache.Entry{}, err
		}
		return cache.Entry{
			RoleARN: f.in.RoleARN, AccountID: s.Credentials.AccountID, AccessKeyID: s.Credentials.AccessKeyID,
			SecretAccessKey: s.Credentials.SecretAccessKey, SessionToken: s.Credentials.SessionToken,
			Created: time.Now(), Expires: s.Credentials.Expires,
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return sessionOf(entry), nil
}

func sessionOf(e cache.Entry) *rolesanywhere.Session {
	return &rolesanywhere.Session{RoleARN: e.RoleARN, Credentials: aws.Credentials{
		AccessKeyID: e.AccessKeyID, SecretAccessKey: e.SecretAccessKey, SessionToken: e.SessionToken,
		AccountID: e.AccountID, CanExpire: true, Expires: e.Expires,
	}}
}

// cacheKey condenses the user, the certificate and all that shapes a session.
// Of files it reads only the one with the certificate. What was cached because
// holdfast was told to is not found without being told to.
func (f *sessionFlags) cacheKey(told bool) (string, error) {
	certRef, keyRef := signer.ParseReference(f.certificate), signer.ParseReference(f.privateKey)
	if certRef.IsZero() {
		certRef = keyRef
	}
	certificate := certRef.String()
	if certRef.Scheme == signer.SchemeFile {
		text, err := readRegular(certRef.Value)
		if err != nil {
			return "", err
		}
		certificate = cache.Key(string(text)) // DER and whatever lies around it
	}
	return cache.Key(
		strconv.Itoa(os.Getuid()), certificate, keyRef.String(), f.intermediates, f.pkcs11Lib, f.certSelector, f.systemStoreName, strconv.FormatBool(f.latestExpiring),
		f.in.TrustAnchorARN, f.in.ProfileARN, f.in.RoleARN, f.in.RoleSessionName, f.duration.String(), f.region,
		cmp.Or(f.endpoint, os.Getenv("AWS_ENDPOINT_URL_ROLESANYWHERE"), os.Getenv("AWS_ENDPOINT_URL")), os.Getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
		os.Getenv("AWS_USE_FIPS_ENDPOINT"), os.Getenv("AWS_USE_DUALSTACK_ENDPOINT"), strconv.FormatBool(f.noVerifySSL), strconv.FormatBool(told),
	), nil
}

// asksPerson reports whether making a session may ask a person for a
// passphrase, a PIN or a touch. In doubt it may: what a person consented to
// once is not handed out again without being told to.
func (f *identityFlags) asksPerson() bool {
	ref := signer.ParseReference(cmp.Or(f.privateKey, f.certificate))
	switch ref.Scheme {
	case signer.SchemePKCS11:
		return f.pin.Asks() && !strings.Contains(ref.Value, "pin-source=") && !strings.Contains(ref.Value, "pin-value=")
	case signer.SchemeHandle:
		return f.tpmHandleAsks()
	}
	text, err := readRegular(ref.Value)
	defer clear(text)
	if err != nil {
		return true
	}
	if file := tpmKeyIn(text); file != nil {
		return f.tpmFileAsks(file)
	}
	return f.pkcs8Password == "" && f.passphrase.Asks() && !opensUnasked(text)
}

// opensUnasked recognises private keys without encryption.
func opensUnasked(text []byte) bool {
	if bytes.Contains(text, []byte("ENCRYPTED")) { // PKCS#8's label, or the header of a traditional key
		return false
	}
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return true
	}
	// DER: an unencrypted key is a SEQUENCE that begins with version 0 or 1,
	// PKCS#12 has version 3, encrypted PKCS#8 begins with a SEQUENCE.
	if len(text) < 8 || text[0] != 0x30 {
		return false
	}
	header := 2
	if text[1]&0x80 != 0 {
		header += int(text[1] & 3)
	}
	return bytes.Equal(text[header:header+2], []byte{2, 1}) && text[header+2] <= 1
}

// readRegular reads a file, but no pipe: what is read from that is gone.
func readRegular(path string) ([]byte, error) {
	const limit = 1 << 20
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s: no regular file of up to 1 MiB", path)
	}
	return os.ReadFile(path)
}
