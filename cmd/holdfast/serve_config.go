package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/metadata"
	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/serveconfig"
	"github.com/holdfast-iam/holdfast/signer"
)

// serveSettings are what to serve and where, from flags or from a file.
type serveSettings struct {
	roles     []*roleSettings
	listeners []*listenerSettings
}

type roleSettings struct {
	name      string
	where     string // for errors
	session   *sessionFlags
	uids      []uint32
	tokenFile string

	identityKey string // same key, same identity
	key         string // same key, same role
}

type listenerSettings struct {
	address  string // as Listen takes it, or fd:NAME
	where    string
	hopLimit int
	mode     fs.FileMode
	options  metadata.ListenerOptions
}

// settings are those of one role, named by flags.
func (f *serveFlags) settings(cmd *cobra.Command) (*serveSettings, error) {
	if f.in.RoleARN == "" {
		return nil, errors.New("no role given: give --role-arn, or --config with many")
	}
	r := &roleSettings{name: filepath.Base(f.in.RoleARN), where: "flags", session: &f.sessionFlags, tokenFile: f.tokenFile}
	if i := strings.LastIndexByte(f.in.RoleARN, '/'); i >= 0 {
		r.name = f.in.RoleARN[i+1:]
	}
	if err := r.finish(cmd.Flags(), &f.roleFlags); err != nil {
		return nil, err
	}
	return &serveSettings{roles: []*roleSettings{r}, listeners: f.listeners()}, nil
}

// listeners are those that flags name. They may be none.
func (f *serveFlags) listeners() []*listenerSettings {
	var ls []*listenerSettings
	for _, address := range f.listen {
		ls = append(ls, f.listener(address))
	}
	return ls
}

func (f *serveFlags) listener(address string) *listenerSettings {
	return &listenerSettings{address: address, where: "--listen", hopLimit: f.hopLimit, mode: 0o600, options: metadata.ListenerOptions{Hosts: f.hosts}}
}

// byDefault is the listener when none is named.
func (f *serveFlags) byDefault() *listenerSettings {
	return f.listener("127.0.0.1:" + strconv.Itoa(f.port))
}

// finish fills in what follows from the flags of fs.
func (r *roleSettings) finish(fs *pflag.FlagSet, rf *roleFlags) error {
	if !metadata.IsName(r.name) {
		return fmt.Errorf("%q cannot be a role's name here: use letters, digits and _+=,.@-", r.name)
	}
	var err error
	if r.uids, err = parseUIDs(rf.allowUIDs); err != nil {
		return err
	}
	identity := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(identityFlags).add(identity)
	var id, all strings.Builder
	fs.VisitAll(func(flag *pflag.Flag) {
		fmt.Fprintf(&all, "%s=%q\n", flag.Name, flag.Value)
		if identity.Lookup(flag.Name) != nil {
			fmt.Fprintf(&id, "%s=%q\n", flag.Name, flag.Value)
		}
	})
	r.identityKey, r.key = id.String(), all.String()
	return nil
}

func parseUIDs(names []string) ([]uint32, error) {
	var uids []uint32
	for _, name := range names {
		name = strings.TrimSpace(name)
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			u, lookupErr := user.Lookup(name)
			if lookupErr != nil {
				return nil, fmt.Errorf("allow-uid: %w", lookupErr)
			}
			if n, err = strconv.ParseUint(u.Uid, 10, 32); err != nil {
				return nil, fmt.Errorf("allow-uid: user %q has no number: %w", name, err)
			}
		}
		uids = append(uids, uint32(n))
	}
	if len(uids) > 0 && !metadata.KnowsPeers {
		return nil, errors.New("allow-uid: this system does not tell who asks")
	}
	return uids, nil
}

// readServeConfig reads the file that --config names.
func readServeConfig(f *serveFlags) (*serveSettings, error) {
	sections, err := serveconfig.Read(f.config)
	if err != nil {
		return nil, &classed{err, errUsage}
	}
	s := &serveSettings{listeners: f.listeners()}
	var defaults []serveconfig.Entry
	for _, section := range sections {
		if section.Kind == serveconfig.Defaults {
			defaults = section.Entries
		}
	}
	for _, section := range sections {
		switch section.Kind {
		case serveconfig.Role:
			var r *roleSettings
			if r, err = f.readRole(section, defaults); err == nil {
				s.roles = append(s.roles, r)
			}
		case serveconfig.Listen:
			var l *listenerSettings
			if l, err = f.readListener(section); err == nil {
				s.listeners = append(s.listeners, l)
			}
		}
		if err != nil {
			return nil, &classed{err, errUsage}
		}
	}
	if len(s.roles) == 0 {
		return nil, &classed{fmt.Errorf("%s: no [role NAME] in it", f.config), errUsage}
	}
	return s, nil
}

// notInFile are flags that a file does not take: secrets, which it would keep,
// and what concerns the process.
var notInFile = []string{"pkcs8-password", "tpm-key-password", "debug", "with-proxy"}

// readRole sets the entries as the flags they are named for, the defaults
// first.
func (f *serveFlags) readRole(section serveconfig.Section, defaults []serveconfig.Entry) (*roleSettings, error) {
	cmd := &cobra.Command{Use: "serve"}
	r := &roleSettings{name: section.Name, session: &sessionFlags{}, where: fmt.Sprintf("%s:%d", f.config, section.Line)}
	var own roleFlags
	r.session.add(cmd.Flags())
	own.add(cmd.Flags())
	r.session.debug = f.debug
	for _, e := range slices.Concat(defaults, section.Entries) {
		if err := setFlag(cmd.Flags(), e); err != nil {
			return nil, &serveconfig.Error{Path: f.config, Line: e.Line, Err: err}
		}
	}
	err := r.session.checkFlags(cmd)
	if err == nil && r.session.in.RoleARN == "" {
		err = errors.New("it has no role-arn")
	}
	if err == nil {
		r.tokenFile = own.tokenFile
		err = r.finish(cmd.Flags(), &own)
	}
	if err != nil {
		return nil, &serveconfig.Error{Path: f.config, Line: section.Line, Err: fmt.Errorf("[role %s]: %w", r.name, err)}
	}
	return r, nil
}

func setFlag(fs *pflag.FlagSet, e serveconfig.Entry) error {
	flag := fs.Lookup(e.Key)
	switch {
	case slices.Contains(notInFile, e.Key):
		return signer.WithHint(fmt.Errorf("%s cannot be set in a file", e.Key), "a passphrase comes from passphrase = file:PATH or credential:NAME")
	case flag == nil:
		return fmt.Errorf("unknown key %q", e.Key)
	}
	if slices, ok := flag.Value.(pflag.SliceValue); ok { // a role's own list replaces the default
		if err := slices.Replace(nil); err != nil {
			return err
		}
	}
	if err := flag.Value.Set(e.Value); err != nil {
		return fmt.Errorf("%s: %w", e.Key, err) // pflag's own error would repeat the value
	}
	flag.Changed = true
	return nil
}

func (f *serveFlags) readListener(section serveconfig.Section) (*listenerSettings, error) {
	l := f.listener(section.Name)
	l.where = fmt.Sprintf("%s:%d", f.config, section.Line)
	fail := func(line int, err error) (*listenerSettings, error) {
		return nil, &serveconfig.Error{Path: f.config, Line: line, Err: err}
	}
	isUnix, isPassed := strings.HasPrefix(l.address, "unix:"), strings.HasPrefix(l.address, "fd:")
	if !isUnix && !isPassed {
		if _, err := metadata.ParseAddress(l.address); err != nil {
			return fail(section.Line, err)
		}
	}
	for _, e := range section.Entries {
		switch {
		case e.Key == "imds-role":
			l.options.IMDSRole = e.Value
		case e.Key == "allow-host":
			l.options.Hosts = strings.FieldsFunc(e.Value, func(r rune) bool { return r == ',' || r == ' ' })
		case e.Key == "hop-limit" && !isUnix && !isPassed:
			n, err := strconv.Atoi(e.Value)
			if err != nil || n < 1 || n > 255 {
				return fail(e.Line, errors.New("hop-limit takes a number from 1 to 255"))
			}
			l.hopLimit = n
		case e.Key == "mode" && isUnix:
			n, err := strconv.ParseUint(e.Value, 8, 32)
			if err != nil || n > 0o777 {
				return fail(e.Line, errors.New("mode takes an octal number such as 0660"))
			}
			l.mode = fs.FileMode(n)
		default:
			return fail(e.Line, fmt.Errorf("unknown key %q", e.Key))
		}
	}
	return l, nil
}
