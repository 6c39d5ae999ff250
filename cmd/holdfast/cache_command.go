package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/cache"
)

func (a *app) cache() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show or clear the credentials kept between runs",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.cacheListCommand(), &cobra.Command{
		Use:   "clear",
		Short: "Remove every cached session of this user",
		Long: `Removes every cached session of this user from the kernel keyring, the runtime
directory and the disk. The sessions themselves live on at AWS until they
expire; revoke them there if they leaked.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.cacheClear() },
	})
	return cmd
}

func (a *app) cacheListCommand() *cobra.Command {
	var f identityFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List cached sessions: expiry, store, access key ID, role; no secret",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.setDebug(f.debug)
			return a.cacheList(cmd.Context(), &f)
		},
	}
	f.addTPMDeviceFlag(cmd.Flags())
	f.addTPMOwnerFlag(cmd.Flags())
	f.addDebugFlag(cmd.Flags())
	return cmd
}

func (a *app) cacheList(ctx context.Context, f *identityFlags) error {
	const row = "%-20s  %-7s  %-9s  %s\n"
	found := false
	sealed := func() (cache.Store, error) { return a.openSealed(ctx, f) }
	return eachCached(sealed, func(store cache.Store, key string) error {
		text, err := store.Get(key)
		if errors.Is(err, cache.ErrNotFound) {
			return nil // it expired between
		}
		if err != nil {
			a.say.Warn(fmt.Sprintf("session %s…: %v", key[:min(8, len(key))], err))
			return nil
		}
		e, err := cache.Decode(key, text)
		if err != nil || !time.Now().Before(e.Expires) {
			return nil
		}
		if !found {
			found = true
			fmt.Fprintf(a.stdout, row, "EXPIRES", "STORE", "KEY ID", "ROLE")
		}
		_, err = fmt.Fprintf(a.stdout, row, e.Expires.Format(time.RFC3339), store.Name(), e.AccessKeyID[:min(8, len(e.AccessKeyID))]+"…", quotedIfOdd(e.RoleARN))
		return err
	})
}

func quotedIfOdd(s string) string {
	if q := quoted(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func (a *app) cacheClear() error {
	n := 0
	err := eachCached(openSealedFiles, func(store cache.Store, key string) error {
		n++
		return store.Delete(key)
	})
	if err == nil {
		a.say.Say("removed %d cached sessions", n)
	}
	return err
}

// openSealedFiles opens the cache on the disk without the TPM that unseals it.
func openSealedFiles() (cache.Store, error) {
	dir, err := sealedDir()
	if err != nil {
		return nil, err
	}
	return &cache.Files{Dir: dir}, nil
}

// eachCached calls f for each entry of each store that this machine has.
func eachCached(sealed func() (cache.Store, error), f func(store cache.Store, key string) error) error {
	stores := []func() (cache.Store, error){openKeyring, openFiles}
	if hasSealed() {
		stores = append(stores, sealed)
	}
	for _, open := range stores {
		store, err := open()
		if errors.Is(err, cache.ErrUnavailable) {
			continue
		}
		if err != nil {
			return err
		}
		keys, err := store.List()
		if err != nil {
			return err
		}
		slices.Sort(keys)
		for _, key := range keys {
			if err := f(store, key); err != nil {
				return err
			}
		}
	}
	return nil
}
