// Command holdfast gives workloads outside AWS short-lived AWS credentials
// through IAM Roles Anywhere, with a private key that stays where it is.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
	"github.com/holdfast-iam/holdfast/pkcs11/hosted"
	"github.com/holdfast-iam/holdfast/tpm"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { // setting signals up takes a while: beside the rest
		signaled, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		<-signaled.Done()
		cancel(context.Cause(signaled))
	}()
	growStack(len(os.Args))
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// growStack makes this goroutine's stack what it will be while there is little
// on it: to grow it by and by costs a short run a twentieth of its time.
//
//go:noinline
func growStack(n int) byte {
	var space [16 << 10]byte
	return space[n%len(space)]
}

// run is the program: its arguments, its output, its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, say: term.Printer{W: stderr, Program: "holdfast"}}
	root := a.root(args)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	a.closeModules()
	a.closeTPMs()
	if err == nil {
		return exitOK
	}
	if cmd.Annotations[foldsErrors] != "" {
		a.say.ErrorLine(err)
	} else {
		a.say.Error(err)
	}
	return exitCode(err)
}

// app is what the commands share.
type app struct {
	stdout io.Writer
	say    term.Printer

	// modules are the hosts of PKCS#11 modules that were started, by path.
	modules map[string]*hosted.Host
	// tpms are the TPMs that were opened, by --tpm-device.
	tpms map[string]*tpm.Device
	// oneSignature: the command signs once, so that a module's host can end
	// while AWS is asked.
	oneSignature bool
	// warnedPIN: a PIN in a URI was warned of.
	warnedPIN bool
}

// foldsErrors marks a command whose callers take stderr into an error message
// of their own: its failures are one line.
const foldsErrors = "folds-errors"

func (a *app) root(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "AWS credentials for workloads outside AWS, from a key that stays where it is",
		Long: `holdfast gives workloads outside AWS short-lived AWS credentials through IAM
Roles Anywhere. The private key that proves who they are stays where it is.

` + exitCodesHelp,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	suggesting(root)
	root.SetUsageFunc(usage)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(cmd, withoutSecret(err))
	})
	a.addCommands(root, args)
	return root
}

// addCommands adds the commands to root: only the one that args begin with, if
// they do with one, to start faster.
func (a *app) addCommands(root *cobra.Command, args []string) {
	commands := []struct {
		name string
		make func() *cobra.Command
	}{
		{"credential-process", a.credentialProcess},
		{"update", a.update},
		{"serve", a.serve},
		{"cache", a.cache},
		{"sign-string", a.signString},
		{"read-certificate-data", a.readCertificateData},
		{"list", a.list},
		{"key", a.key},
		{"csr", a.csr},
		{"certificate", a.certificate},
		{"ca", a.ca},
		{"version", a.version},
	}
	for _, c := range commands {
		if len(args) > 0 && c.name == args[0] {
			root.AddCommand(suggesting(c.make()))
			return
		}
	}
	for _, c := range commands {
		root.AddCommand(suggesting(c.make()))
	}
}

// suggesting lets cmd name the sub-command that a mistyped one may stand for.
func suggesting(cmd *cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

// noArgs refuses stray arguments: an unquoted value in a credential_process
// line otherwise goes unnoticed.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasParent() || cmd.HasSubCommands() {
		err := errors.New("unknown command " + quoted(args[0]))
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = errors.New(err.Error() + ", did you mean " + quoted(near[0]) + "?")
		}
		return usageError(cmd, err)
	}
	return strayArgument(cmd, args[0])
}

func strayArgument(cmd *cobra.Command, arg string) error {
	stray := "stray argument " + quoted(arg)
	if cmd.Flags().Changed("pkcs8-password") || cmd.Flags().Changed("tpm-key-password") {
		stray = "stray argument" // likely the rest of a password with a space in it
	}
	return usageError(cmd, errors.New(stray+": "+cmd.CommandPath()+" takes flags only; quote values that hold spaces"))
}

// withoutSecret drops the value from pflag's complaint about a flag that says
// where a secret is: the value may be the secret itself, given by mistake.
func withoutSecret(err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if _, ok := invalid.GetFlag().Value.(*term.Source); ok {
			return fmt.Errorf("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
		}
	}
	return err
}
