//go:build !cgo

package main

import (
	"errors"

	"github.com/holdfast-iam/holdfast/signer"
)

func newTokenKey(string, string) (*workloadKey, error) {
	return nil, signer.WithHint(errors.New("built without cgo, so holdfast-lab can load no PKCS#11 module"), "build it with CGO_ENABLED=1 and a C compiler")
}
