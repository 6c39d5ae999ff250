//go:build !cgo

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "holdfast-pkcs11: error: built without cgo, so it can load no module\nholdfast-pkcs11: hint: build it with CGO_ENABLED=1 and a C compiler")
	os.Exit(1)
}
