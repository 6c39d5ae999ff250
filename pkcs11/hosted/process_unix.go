//go:build unix

package hosted

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
)

// A process is a running holdfast-pkcs11 and the pipes to it: 3 and 4 there,
// so that a module that prints cannot break the protocol.
type process struct {
	in, out *os.File
	pid     int

	mu   sync.Mutex
	gone bool // reaped: its number may be another's
}

// spawn starts program in a session of its own. What it and the module print
// comes from stdout.
func spawn(program string, cfg Config) (p *process, stdout *os.File, err error) {
	var ends []*os.File
	defer func() {
		for _, f := range ends {
			f.Close()
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	reqR, reqW := pipe()
	repR, repW := pipe()
	outR, outW := pipe()
	null, nullErr := os.Open(os.DevNull)
	ends = append(ends, reqR, repW, outW, null)
	if err == nil {
		err = nullErr
	}
	if err == nil {
		// Not os.StartProcess: its first use in a process tries out, by another
		// process, what the kernel can do.
		var pid int
		pid, err = syscall.ForkExec(program, []string{program, fmt.Sprintf("--protocol=%d", wire.Version)}, &syscall.ProcAttr{
			Env:   append(environment(cfg.Environment), "GOTRACEBACK=none"),
			Files: []uintptr{null.Fd(), outW.Fd(), outW.Fd(), reqR.Fd(), repW.Fd()},
			Sys:   attributes(),
		})
		if err == nil {
			return &process{in: reqW, out: repR, pid: pid}, outR, nil
		}
	}
	ends = append(ends, reqW, repR, outR)
	return nil, nil, err
}

// kill kills the process and all of its group.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	}
}

// wait returns how the process ended, when nothing of its group is left.
func (p *process) wait() string {
	status, err := p.reap()
	switch {
	case err != nil:
		return err.Error()
	case status.Signaled():
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// wait4 reaps the process.
func (p *process) wait4() (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(p.pid, &status, 0, nil); err != syscall.EINTR {
			return status, err
		}
	}
}

func (p *process) closePipes() {
	p.in.Close()
	p.out.Close()
}
