package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-iam/holdfast/cmd/holdfast/internal/term"
)

// helpWidth is that of the help's lines, in columns.
const helpWidth = 100

// usage writes what follows on the description of cmd in its help: how it is
// called, its sub-commands and its flags.
func usage(cmd *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s [command]\n\nCommands:\n", cmd.CommandPath())
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-*s %s\n", cmd.Commands()[0].NamePadding(), c.Name(), c.Short)
			}
		}
	}
	writeFlags(&b, cmd.LocalFlags())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s [command] --help says more of a command.\n", cmd.CommandPath())
	}
	_, err := io.WriteString(cmd.OutOrStderr(), b.String())
	return err
}

// writeFlags writes those for tokens and for TPMs apart from the others, and once
// what they have in common.
func writeFlags(b *strings.Builder, all *pflag.FlagSet) {
	groups := []struct {
		title string
		flags *pflag.FlagSet
	}{{"Flags", nil}, {"Flags for PKCS#11 tokens", nil}, {"Flags for TPMs", nil}}
	sources := false
	all.VisitAll(func(f *pflag.Flag) {
		g := &groups[0]
		switch {
		case strings.HasPrefix(f.Name, "tpm") || f.Name == "no-tpm-key-password":
			g = &groups[2]
		case strings.HasPrefix(f.Name, "pin") || f.Name == "pkcs11-lib" || f.Name == "reuse-pin" || f.Name == "always-authenticate":
			g = &groups[1]
		}
		if g.flags == nil {
			g.flags = pflag.NewFlagSet("", pflag.ContinueOnError)
		}
		g.flags.AddFlag(f)
		_, ok := f.Value.(*term.Source)
		sources = sources || ok
	})
	for _, g := range groups {
		if g.flags != nil {
			fmt.Fprintf(b, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(helpWidth))
		}
	}
	if sources {
		fmt.Fprintf(b, "\nA source is %s.\n", term.Sources)
	}
}
