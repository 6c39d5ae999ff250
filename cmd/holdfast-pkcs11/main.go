//go:build cgo

package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
)

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

const help = `holdfast-pkcs11 runs a PKCS#11 module for holdfast, which starts it by itself
when a key reference is a pkcs11: URI. There is nothing to run by hand.

  --version  print the version
  --help     print this
`

// version is set when a release is linked: -ldflags "-X main.version=v1.2.3".
var version string

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	switch {
	case len(args) == 1 && args[0] == fmt.Sprintf("--protocol=%d", wire.Version):
	case len(args) == 1 && args[0] == "--version":
		fmt.Printf("holdfast-pkcs11 %s (protocol %d) %s %s/%s\n", versionString(), wire.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		fmt.Print(help)
		return exitOK
	case len(args) == 1 && len(args[0]) > 11 && args[0][:11] == "--protocol=":
		return refuse(fmt.Sprintf("this is %s with protocol %d; holdfast asks for %s", versionString(), wire.Version, args[0][11:]),
			"install holdfast and holdfast-pkcs11 of the same release")
	default:
		return refuse("this program is started by holdfast, not by hand", "use holdfast with a pkcs11: URI; see holdfast-pkcs11 --help")
	}
	in, out, ok := channel()
	if !ok {
		return refuse("this program is started by holdfast, not by hand: its pipes are missing", "use holdfast with a pkcs11: URI")
	}
	if err := harden(); err != nil {
		return refuse(err.Error(), "")
	}
	return newServer(in, out).serve()
}

func refuse(why, hint string) int {
	fmt.Fprintln(os.Stderr, "holdfast-pkcs11: error: "+why)
	if hint != "" {
		fmt.Fprintln(os.Stderr, "holdfast-pkcs11: hint: "+hint)
	}
	return exitUsage
}

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
