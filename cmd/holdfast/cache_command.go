package main

import (
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
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List cached sessions: expiry, store, access key ID, role; no secret",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return a.cacheList() },
	}, &cobra.Command{
		Use:   "clear",
		Short: "Remove every cached session of this user",
		Long: `Removes every cached session of this user from the kernel keyring and the
runtime directory. The sessions themselves live on at AWS until they expire;
revoke them there if they leaked.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.cacheClear() },
	})
	return cmd
}

func (a *app) cacheList() error {
	const row = "%-20s  %-7s  %-9s  %s\n"
	found := false
	return eachCached(func(store cache.Store, key string) error {
		text, err := store.Get(key)
		if err != nil {
			return nil // it expired between
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
	err := eachCached(func(store cache.Store, key string) error {
		n++
		return store.Delete(key)
	})
	if err == nil {
		a.say.Say("removed %d cached sessions", n)
	}
	return err
}

// eachCached calls f for each entry of each store that this machine has.
func eachCached(f func(store cache.Store, key string) error) error {
	for _, open := range []func() (cache.Store, error){openKeyring, openFiles} {
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
