//go:build !windows

package tpm

import (
	"fmt"

	"github.com/holdfast-iam/holdfast/signer"
)

func tbsPlace() (place, error) {
	return place{}, fmt.Errorf("TPM tbs: %w: TBS is part of Windows", signer.ErrTokenNotFound)
}
