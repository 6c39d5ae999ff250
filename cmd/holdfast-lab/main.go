// Command holdfast-lab runs a command in a made-up AWS: a CA, IAM Roles
// Anywhere and STS on this machine's loopback, and a profile whose
// credential_process is holdfast.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// Exit codes of the lab itself, chosen as env(1) does, out of the way of the
// command's.
const (
	exitFailure       = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// config is what the flags say.
type config struct {
	options
	sessionDuration seconds
	subject         string
	faults          []string
	holdfast        string
	quiet           bool
	command         []string // empty: stay up
}

// run is the program: its arguments, its streams, its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	code := 0
	root := newCommand(func(ctx context.Context, c *config) (err error) {
		code, err = serve(ctx, c, stdin, stdout, stderr)
		return err
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return code
	}
	fmt.Fprintf(stderr, "holdfast-lab: error: %s\n", oneLine(err.Error()))
	if hint := signer.Hint(err); hint != "" {
		fmt.Fprintf(stderr, "holdfast-lab: hint: %s\n", oneLine(hint))
	}
	if code == 0 {
		return exitFailure
	}
	return code
}

const help = `Runs COMMAND in a made-up AWS, all of it on this machine's loopback: a CA, the
IAM Roles Anywhere endpoint and STS (GetCallerIdentity, AssumeRole), which both
verify every signature. The command finds an AWS config whose profile
edge-workload gets its credentials from holdfast, and the profile edge-chained,
which assumes a second role with them.

  holdfast-lab -- aws sts get-caller-identity
  holdfast-lab --session-duration 30s -- python3 worker.py

An AWS CLI before 2.13 (Debian 12 has 2.9.19) and boto3 before 1.28 ignore
AWS_ENDPOINT_URL_STS. The profile edge-chained is not for them; else, say
  holdfast-lab -- sh -c 'aws --endpoint-url "$AWS_ENDPOINT_URL_STS" sts get-caller-identity'

With --key tpm the workload's key lives in a TPM simulator that is a part of
holdfast-lab: a swtpm to its clients, such as tpm2-tools. It has no resource
manager; what they leave in it goes with
  tpm2_flushcontext -t
and it is switched off and on with
  swtpm_ioctl --unix "$HOLDFAST_LAB_DIR/tpm.ctrl" -i

Without a COMMAND the lab prints its environment for a shell to read, and stays
until SIGINT or SIGTERM. Whatever it wrote is deleted when it ends.

Environment of the command:
  AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE, AWS_REGION,
  AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL_ROLESANYWHERE,
  AWS_STS_REGIONAL_ENDPOINTS, AWS_EC2_METADATA_DISABLED, AWS_PAGER, NO_PROXY
                                 lead to the lab; credentials that were in the
                                 environment are taken out
  XDG_STATE_HOME                 in the lab's directory
  PATH                           holdfast's directory first
  TPM_DEVICE, TPM2TOOLS_TCTI, TPM2OPENSSL_TCTI, HOLDFAST_TPM_LOCK_DIR
                                 the TPM, with --key tpm
  SOFTHSM2_CONF                  the token, with --key pkcs11
  HOLDFAST_LAB_TRUST_ANCHOR_ARN, HOLDFAST_LAB_PROFILE_ARN,
  HOLDFAST_LAB_ROLE_ARN, HOLDFAST_LAB_CHAINED_ROLE_ARN
  HOLDFAST_LAB_CERTIFICATE, HOLDFAST_LAB_PRIVATE_KEY
                                 the workload's, as holdfast's flags take them
  HOLDFAST_LAB_CA_CERTIFICATE, HOLDFAST_LAB_CA_PRIVATE_KEY
                                 files, to issue more certificates with
  HOLDFAST_LAB_DIR               the lab's directory

Exit codes:
  0 to 124  the command's own; 0 too when the lab without a command is ended
  125       the lab failed: wrong usage, no holdfast, no port
  126, 127  the command cannot be run; is not found
  128+n     the command died of signal n`

func newCommand(serve func(context.Context, *config) error) *cobra.Command {
	c := &config{sessionDuration: seconds(time.Hour)}
	cmd := &cobra.Command{
		Use:           "holdfast-lab [flags] [-- COMMAND [ARG...]]",
		Short:         "Run a command in a made-up AWS",
		Long:          help,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.take(args, cmd.ArgsLenAtDash()); err != nil {
				return signer.WithHint(err, "see holdfast-lab --help")
			}
			return serve(cmd.Context(), c)
		},
	}
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return signer.WithHint(err, "see holdfast-lab --help")
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&c.role, "role", "edge-workload", "`name` of the role the workload gets")
	fs.StringVar(&c.region, "region", "eu-central-1", "AWS `region` to be")
	fs.StringVar(&c.keyType, "key", defaultKeyType, "`type` of the workload's key: "+keyTypes())
	fs.StringVar(&c.subject, "subject", "CN=device-1,OU=edge,O=Acme", "`name` in the workload's certificate")
	fs.Var(&c.sessionDuration, "session-duration", "life of the credentials, from 1 to 43200; below AWS's 900 refreshes can be watched")
	fs.DurationVar(&c.latency, "latency", 0, "`time` that every answer takes, such as 200ms")
	fs.StringArrayVar(&c.faults, "fault", nil, "`fault` of Roles Anywhere's next answer: 429, 500, 503, drop, hang, html, empty, truncated, redirect, slow=TIME, skewed-date=TIME; repeat it for the answers after")
	fs.StringVar(&c.holdfast, "holdfast", "", "`path` of holdfast (default: beside holdfast-lab, else on PATH)")
	fs.BoolVar(&c.quiet, "quiet", false, "say nothing on stderr unless the lab fails")
	return cmd
}

// take checks the arguments and what the flags could not.
func (c *config) take(args []string, dash int) error {
	switch {
	case dash < 0 && len(args) > 0, dash > 0:
		return fmt.Errorf("stray argument %q: the command comes after --", args[0])
	case dash == 0 && len(args) == 0:
		return errors.New("there is no command after --")
	}
	c.command = args
	var err error
	if c.subjectName, err = enroll.ParseSubject(c.subject); err != nil {
		return fmt.Errorf("--subject: %w", err)
	}
	for _, text := range c.faults {
		f, err := rolesanywheretest.ParseFault(text)
		if err != nil {
			return fmt.Errorf("--fault: %w", err)
		}
		c.faultQueue = append(c.faultQueue, f)
	}
	c.sessionLife = time.Duration(c.sessionDuration)
	return c.check()
}

// serve runs the lab and, in it, the command.
func serve(ctx context.Context, c *config, stdin io.Reader, stdout, stderr io.Writer) (code int, err error) {
	signals := catchSignals()
	defer signals.stop()

	holdfast, err := findHoldfast(c.holdfast)
	if err != nil {
		return exitFailure, err
	}
	lab, err := newLab(c.options, holdfast)
	if err != nil {
		return exitFailure, err
	}
	defer func() {
		if closeErr := lab.close(); closeErr != nil && err == nil {
			code, err = exitFailure, closeErr
		}
	}()
	if !c.quiet {
		fmt.Fprintf(stderr, "holdfast-lab: %s in %s, key %s, sessions of %v; nothing here is real\n", lab.roleARN, c.region, c.keyType, c.sessionLife)
	}
	if len(c.command) > 0 {
		return runCommand(ctx, c.command, environ(os.Environ(), lab.variables()), signals, stdin, stdout, stderr)
	}
	if _, err := io.WriteString(stdout, exports(os.Environ(), lab.variables())); err != nil {
		return exitFailure, fmt.Errorf("print the environment: %w", err)
	}
	select {
	case <-signals.c:
	case <-ctx.Done():
	}
	return 0, nil
}

// oneLine keeps a message from faking others, or moving the cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// seconds is a flag of whole seconds, or a Go duration such as 15m.
type seconds time.Duration

func (s *seconds) Set(text string) error {
	if n, err := strconv.Atoi(text); err == nil && n < 1e6 {
		*s = seconds(time.Duration(n) * time.Second)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d%time.Second != 0 {
		return errors.New("give whole seconds, or a duration such as 15m")
	}
	*s = seconds(d)
	return nil
}

func (s *seconds) String() string { return strconv.Itoa(int(time.Duration(*s) / time.Second)) }
func (*seconds) Type() string     { return "seconds" }
