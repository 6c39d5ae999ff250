package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// An op is one use of a Device, from which others are kept out. It is the
// transport.TPM that commands of the operation run on.
type op struct {
	d        *Device
	ctx      context.Context
	done     bool
	evicting bool
	settling bool
	expect   tpm2.TPM2BName // Name of what the next ContextLoad brings back
}

// Retries of what a TPM or its resource manager asks to be tried again.
const (
	firstPause  = time.Millisecond
	longestWait = 200 * time.Millisecond
	// memoryPatience is how long slots that other programs hold are waited for.
	memoryPatience = 3 * time.Second
	// absentPatience is how long a TPM that was there is given to restart.
	absentPatience = 2 * time.Second
)

// Send implements transport.TPM: it runs a command, retries it when it has to,
// and keeps account of the handles it makes and ends.
func (o *op) Send(command []byte) ([]byte, error) {
	if o.done {
		return nil, errors.New("this use of the TPM has ended")
	}
	// A software TPM takes what is too much for the next command.
	switch n := len(command); {
	case n < headerSize, int(binary.BigEndian.Uint32(command[2:6])) != n:
		return nil, errors.New("a command whose size is not its length")
	case n > maxCommand:
		return nil, fmt.Errorf("%w: a command of %d bytes, and TPMs take %d", signer.ErrMalformed, n, maxCommand)
	}
	started, since := false, time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestWait) {
		rsp, err := o.d.roundTrip(o, command)
		if err != nil {
			return nil, err
		}
		rc := responseCode(rsp)
		switch {
		case rc == tpm2.TPMRCInitialize && o.d.shared && !started:
			// Firmware and kernels do this for hardware.
			started = true
			if err := o.startup(); err != nil {
				return nil, err
			}
			continue
		case transient(rc):
		case outOfMemory(rc):
			if o.d.evict(o, rc) {
				continue
			}
			if o.d.managed || time.Since(since) > memoryPatience {
				return rsp, nil
			}
		default:
			return rsp, nil
		}
		if err := sleep(o.ctx, jitter(pause)); err != nil {
			return nil, o.d.errorf("%w", late(fmt.Errorf("%w: it is still busy: %w", err, rc)))
		}
	}
}

// roundTrip sends the command once.
func (d *Device) roundTrip(o *op, command []byte) ([]byte, error) {
	if err := o.settle(); err != nil {
		return nil, err
	}
	if err := d.connect(o.ctx); err != nil {
		return nil, err
	}
	note, err := d.announce(o, command)
	if err != nil {
		return nil, err
	}
	rsp, err := d.wire.exchange(o.ctx, command)
	if err != nil {
		if note.kind != "" {
			d.doubt = note
		}
		d.hangUp()
		switch {
		case o.ctx.Err() != nil:
			return nil, d.errorf("%w", late(err))
		case errors.Is(err, errNonsense):
			return nil, d.errorf("%w", signer.WithHint(err, "is a TPM there? Name a device (/dev/tpmrm0) or a socket of a software TPM"))
		}
		return nil, d.errorf("%w", gone(err, "if it was restarted, try again; is "+d.name+" still there?"))
	}
	// tpm2-tss's and the kernel's resource managers mark codes as theirs.
	rc := responseCode(rsp)
	binary.BigEndian.PutUint32(rsp[6:], uint32(rc))
	d.account(note, command, rsp)
	return rsp, nil
}

// late says what to do when a TPM takes longer than it is given.
func late(err error) error {
	return signer.WithHint(err, "it is busy, or hangs: try again; if that does not help, restart the software TPM, or the machine")
}

// startup does what firmware does for a hardware TPM.
func (o *op) startup() error {
	o.d.forget()
	cmd := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	rsp, err := o.d.roundTrip(o, cmd)
	if err != nil {
		return err
	}
	if rc := responseCode(rsp); rc != tpm2.TPMRCSuccess && rc != tpm2.TPMRCInitialize {
		return o.d.errorf("TPM2_Startup: %w", rc)
	}
	return nil
}

// connect dials unless there is a connection. It waits while the TPM is busy
// with others, and for a moment if it was there and is gone.
func (d *Device) connect(ctx context.Context) error {
	if d.wire != nil {
		return nil
	}
	start := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestWait) {
		w, err := d.dial(ctx)
		if err == nil {
			d.wire, d.dialed, d.dialedAt = w, true, time.Now()
			return nil
		}
		if ctx.Err() != nil {
			return d.errorf("connecting: %w", context.Cause(ctx))
		}
		if !busyDial(err) && (!absentDial(err) || !d.dialed || time.Since(start) > absentPatience) {
			if absentDial(err) {
				return d.errorf("%w", gone(err, "does the software TPM run?"))
			}
			return d.errorf("%w", err)
		}
		if serr := sleep(ctx, jitter(pause)); serr != nil {
			return d.errorf("busy with other programs: %w: %w", serr, err)
		}
	}
}

// hangUp drops a connection that is of no use any more. A resource manager
// then flushes what was on it; without one it is still in the TPM, unless that
// was reset.
func (d *Device) hangUp() {
	if d.wire != nil {
		_ = d.wire.close()
		d.wire = nil
	}
	if d.managed {
		d.forget()
	}
}

// responseCode returns the TPM's code without the mark of the layer that sent
// it.
func responseCode(rsp []byte) tpm2.TPMRC {
	return tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:10]) & 0xffff)
}

func transient(rc tpm2.TPMRC) bool {
	switch rc {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
		return true
	}
	return false
}

func outOfMemory(rc tpm2.TPMRC) bool {
	switch rc {
	case tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionHandles:
		return true
	}
	return false
}

// jitter spreads retries, so that several programs do not stay in step.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // not a secret
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// codeOf returns the TPM's response code in err, without the number of the
// handle, parameter or session it is about, or 0.
func codeOf(err error) tpm2.TPMRC {
	var rc tpm2.TPMRC
	if !errors.As(err, &rc) {
		return 0
	}
	if rc&0x80 != 0 {
		return rc & 0xbf
	}
	return rc
}

// lost reports whether err says that handles are gone: the TPM was reset, or
// the connection to it broke.
func lost(err error) bool {
	switch rc := codeOf(err); {
	case rc >= tpm2.TPMRCReferenceH0 && rc <= tpm2.TPMRCReferenceS6, rc == tpm2.TPMRCHandle, rc == tpm2.TPMRCInitialize:
		return true
	}
	return errors.Is(err, errBroken)
}

// explain adds to an error of the TPM what a person can do about it.
func (d *Device) explain(err error) error {
	if err == nil || signer.Hint(err) != "" {
		return err
	}
	switch rc := codeOf(err); {
	case outOfMemory(rc) && d.managed:
		return signer.WithHint(err, "another object or session of this program fills the TPM's slots")
	case outOfMemory(rc):
		return signer.WithHint(err, "other programs fill the TPM's slots; if none runs, free them: tpm2_flushcontext -t -l -s, or use /dev/tpmrm0")
	case rc == tpm2.TPMRCFailure:
		return signer.WithHint(err, "the TPM is in failure mode: only a restart of the machine helps, or new firmware")
	case transient(rc):
		return signer.WithHint(err, "the TPM is busy; try again")
	case rc == 0 && !lost(err) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return signer.WithHint(err, "the answer makes no sense: is a TPM there? Name a device (/dev/tpmrm0) or a socket of a software TPM")
	}
	return err
}

// wrapf names the TPM and what was attempted, and explains.
func (d *Device) wrapf(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return d.explain(fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err))
}
