package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/metadata"
	"github.com/holdfast-iam/holdfast/signer"
)

// A runningRole is a role with what it was made from.
type runningRole struct {
	settings *roleSettings
	role     *metadata.Role
	keeper   *identityKeeper
	fetch    *sessionFetch
	cancel   func()
}

// A change is what new settings need beside what there is. Nothing of it
// serves before commit.
type change struct {
	d         *daemon
	keepers   map[string]*identityKeeper
	roles     map[string]*runningRole
	newRoles  []*runningRole
	listeners map[string]*openListener
	order     []*openListener
	opened    []*openListener
	list      []*metadata.Role
}

func (c *change) addRole(ctx context.Context, rs *roleSettings) error {
	if old := c.d.roles[rs.name]; old != nil && old.settings.key == rs.key {
		c.roles[rs.name] = old
		c.keepers[rs.identityKey] = old.keeper
		c.list = append(c.list, old.role)
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("role %s: %w", rs.name, err) }
	keeper := c.keepers[rs.identityKey]
	if keeper == nil {
		keeper = c.d.keepers[rs.identityKey]
	}
	if keeper == nil {
		keeper = newIdentityKeeper(c.d.a, &rs.session.identityFlags, c.d.log, &c.d.opening)
	}
	c.keepers[rs.identityKey] = keeper
	keeper.retain()
	r := &runningRole{settings: rs, keeper: keeper}
	c.newRoles = append(c.newRoles, r)
	var err error
	if r.fetch, err = newSessionFetch(c.d.a, rs.session, keeper, c.d.log); err != nil {
		return fail(err)
	}
	if err := r.fetch.check(ctx); err != nil {
		return fail(err)
	}
	o := metadata.RoleOptions{Name: rs.name, Fetch: r.fetch.fetch, Provenance: r.fetch.provenance, AllowUIDs: rs.uids, Logger: c.d.log}
	if rs.tokenFile != "" {
		if o.Token, err = metadata.OpenTokenFile(rs.tokenFile); err != nil {
			return fail(&classed{err, errUsage})
		}
	}
	if r.role, err = metadata.NewRole(o); err != nil {
		return fail(err)
	}
	c.roles[rs.name] = r
	c.list = append(c.list, r.role)
	return nil
}

func (c *change) addListeners(s *serveSettings) error {
	asked := slices.Clone(s.listeners)
	if len(asked) == 0 && len(c.d.passed) == 0 {
		asked = append(asked, c.d.f.byDefault())
	}
	taken := map[net.Listener]bool{}
	for _, ls := range asked {
		fail := func(err error) error { return &classed{fmt.Errorf("%s: %w", ls.where, err), errUsage} }
		if err := c.checkListener(ls); err != nil {
			return fail(err)
		}
		if c.listeners[ls.address] != nil {
			return fail(fmt.Errorf("%s is named twice", ls.address))
		}
		if name, ok := strings.CutPrefix(ls.address, "fd:"); ok {
			found := false
			for _, p := range c.d.passed {
				if p.name == name {
					found, taken[p.listener] = true, true
					if err := c.addPassed(p, ls); err != nil {
						return fail(err)
					}
				}
			}
			if !found {
				return fail(fmt.Errorf("systemd passed no socket named %q", name))
			}
			continue
		}
		if err := c.open(ls); err != nil {
			if errors.Is(err, errUsage) {
				return fail(err)
			}
			return err
		}
	}
	for _, p := range c.d.passed {
		if !taken[p.listener] {
			if err := c.addPassed(p, c.d.f.listener("fd:"+p.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkListener refuses what would serve nobody, or anybody.
func (c *change) checkListener(ls *listenerSettings) error {
	if role := ls.options.IMDSRole; role != "" {
		r := c.roles[role]
		if r == nil {
			return fmt.Errorf("imds-role: there is no [role %s]", role)
		}
		if r.role.HasToken() {
			return fmt.Errorf("imds-role: role %s has an authorization token, which IMDS cannot ask for", role)
		}
	}
	if strings.HasPrefix(ls.address, "fd:") || metadata.IsLocal(ls.address) {
		return nil
	}
	if _, err := metadata.ParseAddress(ls.address); err != nil {
		return err
	}
	return c.checkReachable(ls.address)
}

// checkReachable lets a socket reach beyond the machine only if there is
// something on it to serve there.
func (c *change) checkReachable(address string) error {
	for _, r := range c.list {
		if r.HasToken() {
			return nil
		}
	}
	return signer.WithHint(fmt.Errorf("%s can be reached from beyond this machine, and no role on it has an authorization token", address),
		"listen on the loopback, or give the role an authorization-token-file")
}

func (c *change) open(ls *listenerSettings) error {
	if old := c.d.listeners[ls.address]; old != nil {
		if old.asked.hopLimit != ls.hopLimit || old.asked.mode != ls.mode {
			return &classed{fmt.Errorf("hop-limit and mode of %s cannot change while it serves: restart holdfast", ls.address), errUsage}
		}
		c.add(&openListener{old.Listener, ls.address, ls})
		return nil
	}
	inner, err := metadata.Listen(ls.address, ls.hopLimit, ls.mode)
	if err != nil {
		return err
	}
	l := &openListener{inner, ls.address, ls}
	c.opened = append(c.opened, l)
	c.add(l)
	return nil
}

func (c *change) addPassed(p passedSocket, ls *listenerSettings) error {
	key := "fd:" + p.name + "=" + p.listener.Addr().String()
	if old := c.d.listeners[key]; old != nil {
		c.add(&openListener{old.Listener, key, ls})
		return nil
	}
	inner, err := metadata.NewListener(p.listener.Addr().String(), p.listener)
	if err != nil {
		return err
	}
	if !inner.Local() {
		if err := c.checkReachable(inner.Name()); err != nil {
			return err
		}
	}
	c.add(&openListener{inner, key, ls})
	return nil
}

func (c *change) add(l *openListener) {
	c.listeners[l.address] = l
	c.order = append(c.order, l)
}

// undo closes what was opened for a change that is not made.
func (c *change) undo() {
	for _, l := range c.opened {
		_ = l.Close() // nobody has seen it
	}
	for _, r := range c.newRoles {
		r.keeper.release()
	}
}

// commit changes over: first the roles, then the sockets that show them.
func (c *change) commit(s *serveSettings) {
	d := c.d
	for _, r := range c.newRoles {
		if old := d.roles[r.settings.name]; old != nil && old.settings.session.in.RoleARN == r.settings.session.in.RoleARN {
			r.role.Inherit(old.role)
		}
		ctx, cancel := context.WithCancel(d.roleCtx)
		r.cancel = cancel
		d.running.Go(func() {
			r.role.Run(ctx)
			r.fetch.close()
			r.keeper.release()
		})
	}
	d.server.SetRoles(c.list)
	for name, old := range d.roles {
		if c.roles[name] != old {
			old.cancel()
		}
	}
	for _, l := range c.order {
		l.Configure(l.asked.options)
		if old := d.listeners[l.address]; old == nil {
			d.server.Serve(l.Listener)
			d.log.Info("listening", "address", l.Name(), "pid", os.Getpid())
		}
	}
	for address, old := range d.listeners {
		if c.listeners[address] == nil {
			d.server.Remove(old.Listener)
			d.log.Info("no longer listening", "address", old.Name())
		}
	}
	d.settings, d.roles, d.listeners, d.order, d.keepers = s, c.roles, c.listeners, c.order, c.keepers
}
