package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/signer"
)

// serveFlags are those of aws_signing_helper's serve, and what it lacks.
type serveFlags struct {
	sessionFlags
	roleFlags
	config   string
	listen   []string
	port     int
	hopLimit int
	hosts    []string
}

const (
	defaultPort     = 9911
	defaultHopLimit = 64
)

func (f *serveFlags) add(fs *pflag.FlagSet) {
	f.sessionFlags.add(fs)
	f.roleFlags.add(fs)
	fs.StringVar(&f.config, "config", "", "`file` that names roles and listeners, read again on SIGHUP; in place of the flags that name a role")
	fs.IntVar(&f.port, "port", defaultPort, "`port` on 127.0.0.1; 0 takes a free one")
	fs.StringArrayVar(&f.listen, "listen", nil, "`address` to listen on, in place of --port: 127.0.0.1:9911, [::1]:9911, unix:PATH (repeatable); beyond the loopback an --authorization-token-file is needed")
	fs.IntVar(&f.hopLimit, "hop-limit", defaultHopLimit, "IP `TTL` of the answers, 1 to 255")
	fs.StringArrayVar(&f.hosts, "allow-host", nil, "`name` that a request's Host header may bear beside this machine's addresses (repeatable)")
}

// roleFlags say who may have a role's credentials.
type roleFlags struct {
	allowUIDs []string
	tokenFile string
}

func (f *roleFlags) add(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.allowUIDs, "allow-uid", nil, "`users`, by number or name, who alone may have the credentials (Linux)")
	fs.StringVar(&f.tokenFile, "authorization-token-file", "", "`file` with what a request must bring as Authorization; IMDS then has nothing to show")
}

func (a *app) serve() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve credentials to this machine's processes, as EC2 and ECS do (IMDSv2, container credentials)",
		Long: `Keeps the credentials of one role, or of many, fresh in the background and
serves them to AWS SDKs and CLIs, by IMDSv2 and as container credentials:

  AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:9911/
  AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:9911/role/NAME
  AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=FILE   with --authorization-token-file FILE

NAME is the role's own name, or the one that --config FILE gives it:

  [defaults]
  certificate      = /etc/edge/device.crt
  private-key      = /etc/edge/device.key
  trust-anchor-arn = ARN
  profile-arn      = ARN

  [role backup]
  role-arn  = ARN
  allow-uid = 1001, backup

  [role metrics]
  role-arn                 = ARN
  authorization-token-file = /run/holdfast/metrics.token

  [listen 127.0.0.1:9911]
  imds-role = backup

  [listen unix:/run/holdfast/socket]
  mode = 0660

The keys of [defaults] and [role] are this command's flags that name an
identity, a session and who may have it; those of [listen] are imds-role,
hop-limit, allow-host and, for unix sockets, mode. [listen fd:NAME] is a
socket that systemd passes under that name; any other that it passes is served
too. Without imds-role, IMDS shows a caller the one role it may have.

SIGHUP reads the file again; what is wrong in it is logged and changes nothing.
/healthz tells whether every role has credentials, /metrics is for Prometheus.
The log on stderr is JSON, a line for whoever got a session. Under systemd, use
Type=notify-reload, and WatchdogSec= if wanted.

` + exitCodesHelp,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load, err := f.loader(cmd)
			if err != nil {
				return err
			}
			return a.runServe(cmd.Context(), &f, load)
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// loader checks the flags and returns what reads the settings: the flags
// themselves, or the file, each time anew.
func (f *serveFlags) loader(cmd *cobra.Command) (func() (*serveSettings, error), error) {
	fs := cmd.Flags()
	switch {
	case f.hopLimit < 1 || f.hopLimit > 255:
		return nil, usageError(cmd, errors.New("--hop-limit takes a number from 1 to 255"))
	case f.port < 0 || f.port > 65535:
		return nil, usageError(cmd, errors.New("--port takes a number from 0 to 65535"))
	case fs.Changed("port") && len(f.listen) > 0:
		return nil, usageError(cmd, errors.New("--port and --listen do not go together: --listen 127.0.0.1:PORT does both"))
	}
	if f.config == "" {
		if err := f.checkFlags(cmd); err != nil {
			return nil, err
		}
		s, err := f.settings(cmd)
		if err != nil {
			return nil, usageError(cmd, err)
		}
		return func() (*serveSettings, error) { return s, nil }, nil
	}
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(sessionFlags).add(own)
	new(roleFlags).add(own)
	var stray error
	fs.Visit(func(flag *pflag.Flag) {
		if own.Lookup(flag.Name) != nil && flag.Name != "debug" && stray == nil {
			stray = usageError(cmd, signer.WithHint(fmt.Errorf("--%s does not go with --config", flag.Name), "write it into the file, under [defaults] or a [role NAME]"))
		}
	})
	if stray != nil {
		return nil, stray
	}
	return func() (*serveSettings, error) { return readServeConfig(f) }, nil
}

// exportLines are what a shell needs to use the first listener that SDKs can.
func (d *daemon) exportLines() string {
	for _, l := range d.order {
		if l.address == "" || !l.isTCP() || !l.Local() {
			continue
		}
		for _, rs := range d.settings.roles {
			if rs.tokenFile == "" {
				return fmt.Sprintf("export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://%s/\n", l.Name())
			}
		}
		if roles := d.settings.roles; len(roles) == 1 {
			return fmt.Sprintf("export AWS_CONTAINER_CREDENTIALS_FULL_URI=http://%s/role/%s\nexport AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=%s\n",
				l.Name(), roles[0].name, shellQuoted(roles[0].tokenFile))
		}
	}
	return ""
}

func shellQuoted(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// sayExport tells a shell where the credentials are; a closed stdout is no
// reason to end.
func (d *daemon) sayExport() {
	if lines := d.exportLines(); lines != "" {
		if _, err := d.a.stdout.Write([]byte(lines)); err != nil && !errors.Is(err, os.ErrClosed) {
			d.log.Warn("write to stdout", "error", err.Error())
		}
	}
}
