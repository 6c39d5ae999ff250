package hosted

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes: the kernel ends the child with this process.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// reap waits for the process to end, kills what is left of its group while the
// group's number cannot be another's, and reaps it.
func (p *process) reap() (syscall.WaitStatus, error) {
	for unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	return p.wait4()
}
