package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpmutil/tbs"

	"github.com/holdfast-iam/holdfast/signer"
)

func tbsPlace() (place, error) {
	info, err := tbs.GetDeviceInfo()
	if err != nil {
		return place{}, fmt.Errorf("TPM tbs: %w: %w", signer.ErrTokenNotFound, err)
	}
	if info.TPMVersion != tbs.TPMVersion20 {
		return place{}, fmt.Errorf("TPM tbs: %w: not a TPM 2.0", signer.ErrTokenNotFound)
	}
	return place{name: "tbs", id: "tbs", managed: true, dial: func(context.Context) (wire, error) {
		c, err := tbs.CreateContext(tbs.TPMVersion20, tbs.IncludeTPM20)
		if err != nil {
			return nil, err
		}
		t := newGivenWire(tbsTransport{c})
		return tbsWire{t, c}, nil
	}}, nil
}

// A tbsWire closes its context when it is given up, which ends the commands
// that still run in it.
type tbsWire struct {
	*givenWire
	context tbs.Context
}

func (w tbsWire) close() error { return w.context.Close() }

type tbsTransport struct{ context tbs.Context }

func (t tbsTransport) Send(command []byte) ([]byte, error) {
	rsp := make([]byte, 4096)
	n, err := t.context.SubmitCommand(tbs.NormalPriority, command, rsp)
	if err != nil {
		return nil, err
	}
	if int(n) > len(rsp) {
		return nil, errors.New("a response longer than its buffer")
	}
	return rsp[:n], nil
}
