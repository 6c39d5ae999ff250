// Package simulator serves a TPM 2.0 on a unix socket: Microsoft's reference
// implementation, as C code in this process. To its clients it is a swtpm.
//
// It has no resource manager, as swtpm has none: three objects and three
// sessions for everybody, and what a client leaves behind stays. Its state lives
// in memory.
package simulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// A TPM is a simulator with its sockets.
type TPM struct {
	path     string
	patience time.Duration
	data     *door
	ctrl     *door

	mu  sync.Mutex // the simulator does one thing at a time
	sim *simulator.Simulator
}

// one is held by the TPM that is running: the C code keeps its state in global
// variables.
var one sync.Mutex

// Start switches a new TPM on, with new seeds, and listens at path, and at
// path.ctrl for tpm2-tss, which will not do without swtpm's control channel. A
// process has one TPM at a time. The caller closes it.
func Start(path string) (*TPM, error) { return start(path, 10*time.Second) }

// start is Start for clients who may take so much time to send the rest of what
// they began, or to take an answer. One that was stopped in between would keep
// all others out.
func start(path string, patience time.Duration) (*TPM, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if !one.TryLock() {
		return nil, errors.New("TPM simulator: this process runs one already")
	}
	sim, err := simulator.Get()
	if err != nil {
		one.Unlock()
		return nil, signer.WithHint(fmt.Errorf("TPM simulator: %w", err),
			"build this program with CGO_ENABLED=1, a C compiler and OpenSSL's headers: apt-get install gcc libc6-dev libssl-dev")
	}
	t := &TPM{path: path, patience: patience, sim: sim}
	if t.data, err = open(path, t.serve); err == nil {
		t.ctrl, err = open(path+controlSuffix, t.control)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("TPM simulator: %w", err), t.Close())
	}
	return t, nil
}

const controlSuffix = ".ctrl"

// maxPath is the least of what systems take as a socket's path, less the zero
// byte at its end: macOS's and the BSDs'.
const maxPath = 103

func checkPath(path string) error {
	switch {
	case len(path+controlSuffix) > maxPath:
		return signer.WithHint(fmt.Errorf("TPM simulator: %s: a socket's path has at most %d bytes", path, maxPath-len(controlSuffix)),
			"set TMPDIR to a directory with a short path, such as /tmp")
	case strings.Contains(path, ","):
		return signer.WithHint(fmt.Errorf("TPM simulator: %s: tpm2-tss takes no socket whose path has a comma", path),
			"set TMPDIR to a directory without one, such as /tmp")
	}
	return nil
}

// TCTI names the TPM as tpm2-tss does, and holdfast too.
func (t *TPM) TCTI() string { return "swtpm:path=" + t.path }

// Close hangs up on the clients, removes the sockets and switches the TPM off.
// A command that runs is waited for. What the TPM held is gone.
func (t *TPM) Close() error {
	var errs []error
	for _, d := range []*door{t.ctrl, t.data} {
		if d != nil {
			errs = append(errs, d.close())
		}
	}
	// TPM2_Shutdown, which can fail, is for a state that lasts.
	_ = t.sim.Close()
	one.Unlock()
	return errors.Join(errs...)
}

// maxPacket is the most that the simulator takes, and gives.
const maxPacket = 4096

// run has the TPM execute a command of at least [headerSize] bytes.
func (t *TPM) run(command []byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.sim.Write(command); err != nil {
		return failure(tpm2.TPMRCFailure)
	}
	response := make([]byte, maxPacket)
	n, err := t.sim.Read(response)
	if err != nil {
		return failure(tpm2.TPMRCFailure)
	}
	return response[:n]
}

// reset switches the TPM off and on again.
func (t *TPM) reset() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sim.Reset()
}

// failure is a response that has nothing but a code.
func failure(rc tpm2.TPMRC) []byte {
	response := []byte{0x80, 0x01, 0, 0, 0, headerSize} // TPM_ST_NO_SESSIONS
	return binary.BigEndian.AppendUint32(response, uint32(rc))
}

// serve runs the commands of a client until it hangs up.
func (t *TPM) serve(conn net.Conn) {
	p := newPeer(conn, t.patience)
	for {
		command, err := p.command()
		var size sizeError
		if errors.As(err, &size) {
			_ = p.write(failure(tpm2.TPMRCCommandSize)) // where the next one begins is unknown
			return
		}
		if err != nil || p.write(t.run(command)) != nil {
			return
		}
	}
}
