//go:build unix && !linux

package hosted

import "syscall"

// attributes: the child ends with this process when it sees its pipe close.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// reap waits for the process to end and kills what is left of its group, whose
// number is nobody else's while it has a member.
func (p *process) reap() (syscall.WaitStatus, error) {
	status, err := p.wait4()
	p.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	return status, err
}
