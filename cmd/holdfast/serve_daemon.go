package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/metadata"
	"github.com/holdfast-iam/holdfast/signer"
)

const (
	// shutdownTime is what running requests get when the daemon is told to end.
	shutdownTime = 5 * time.Second
	// reloadTime bounds how long a new configuration may take to be opened.
	reloadTime = time.Minute
)

// A daemon serves settings, and changes over to new ones.
type daemon struct {
	a      *app
	f      *serveFlags
	log    *slog.Logger
	server *metadata.Server
	passed []passedSocket // by systemd

	settings  *serveSettings
	roles     map[string]*runningRole // by name
	listeners map[string]*openListener
	order     []*openListener
	keepers   map[string]*identityKeeper // by identityKey

	roleCtx context.Context
	running sync.WaitGroup
	opening sync.Mutex // one key at a time: what opens them is made for a single command
}

// An openListener is a socket with the settings it was opened for.
type openListener struct {
	*metadata.Listener
	address string
	asked   *listenerSettings
}

func (l *openListener) isTCP() bool { return !strings.HasPrefix(l.Name(), "unix:") }

func (a *app) runServe(ctx context.Context, f *serveFlags, load func() (*serveSettings, error)) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	level := slog.LevelInfo
	if f.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(a.say.W, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	defer func(w io.Writer) { a.say.W = w }(a.say.W)
	a.say.W = &warningLog{log} // while it serves, every line on stderr is JSON
	roleCtx, stopRoles := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRoles()
	d := &daemon{a: a, f: f, log: log, server: metadata.NewServer(metadata.Options{Logger: log}), roleCtx: roleCtx}
	defer d.end(stopRoles)

	var err error
	if d.passed, err = passedSockets(); err != nil {
		return err
	}
	s, err := load()
	if err != nil {
		return err
	}
	if err := d.apply(ctx, s); err != nil {
		return err
	}
	d.sayExport()
	notify(log, "READY=1\nSTATUS="+d.status())
	d.loop(ctx, hangup, load)
	return nil
}

func (d *daemon) loop(ctx context.Context, hangup <-chan os.Signal, load func() (*serveSettings, error)) {
	watchdog, stop := watchdogTicks()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			d.reload(ctx, load)
		case <-watchdog:
			if name, stuck := d.stuck(); stuck {
				d.log.Error("the role's key or network does not return: no sign of life goes to the watchdog", "role", name)
				continue
			}
			notify(d.log, "WATCHDOG=1")
		}
	}
}

func (d *daemon) stuck() (string, bool) {
	for name, r := range d.roles {
		if r.role.Stuck(2*time.Minute + time.Duration(r.settings.session.timeout)) {
			return name, true
		}
	}
	return "", false
}

func (d *daemon) reload(ctx context.Context, load func() (*serveSettings, error)) {
	if d.f.config == "" {
		d.log.Info("SIGHUP: there is no --config file to read again")
		return
	}
	notify(d.log, "RELOADING=1\n"+monotonicNow())
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	s, err := load()
	if err == nil {
		err = d.apply(ctx, s)
	}
	if err != nil {
		args := []any{"error", err.Error()}
		if hint := signer.Hint(err); hint != "" {
			args = append(args, "hint", hint)
		}
		d.log.Error("the new configuration cannot be used: the old one stays", args...)
	} else {
		d.log.Info("reloaded", "file", d.f.config, "roles", len(d.roles), "listeners", len(d.order))
	}
	notify(d.log, "READY=1\nSTATUS="+d.status())
}

func (d *daemon) status() string {
	var names []string
	for _, l := range d.order {
		names = append(names, l.Name())
	}
	return fmt.Sprintf("%d roles on %s", len(d.roles), strings.Join(names, ", "))
}

// end stops serving, then the roles. A key that does not return is left to the
// operating system.
func (d *daemon) end(stopRoles func()) {
	notify(d.log, "STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := d.server.Shutdown(ctx); err != nil {
		d.log.Warn("requests were cut off", "error", err.Error())
	}
	stopRoles()
	done := make(chan struct{})
	go func() { d.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(shutdownTime):
		d.log.Warn("a key did not return in time")
	}
	for _, p := range d.passed {
		_ = p.listener.Close() // those in use are closed already
	}
}

// apply changes over to new settings, or returns an error and leaves all as it
// was.
func (d *daemon) apply(ctx context.Context, s *serveSettings) (err error) {
	next := change{d: d, keepers: map[string]*identityKeeper{}, roles: map[string]*runningRole{}, listeners: map[string]*openListener{}}
	defer func() {
		if err != nil {
			next.undo()
		}
	}()
	for _, rs := range s.roles {
		if err := next.addRole(ctx, rs); err != nil {
			return err
		}
	}
	if err := next.addListeners(s); err != nil {
		return err
	}
	next.commit(s)
	return nil
}

// warningLog turns the lines that a Printer writes into log records.
type warningLog struct{ log *slog.Logger }

func (w *warningLog) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "holdfast: ")
		w.log.Warn(strings.TrimPrefix(line, "warning: "))
	}
	return len(p), nil
}
