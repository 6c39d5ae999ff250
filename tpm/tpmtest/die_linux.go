package tpmtest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the process killed when a test is that cannot clean up.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
