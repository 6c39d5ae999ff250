package hosted

import (
	"fmt"
	"os"
	"syscall"

	"github.com/holdfast-iam/holdfast/pkcs11/hosted/wire"
)

// A process is a running holdfast-pkcs11 and the pipes to it, which are its
// stdin and stdout; what it prints elsewhere is captured from stderr.
type process struct {
	in, out *os.File
	proc    *os.Process
}

func spawn(program string, cfg Config) (p *process, stdout *os.File, err error) {
	var files []*os.File
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(files)
			return nil, nil, err
		}
		files = append(files, r, w)
	}
	reqR, reqW, repR, repW, outR, outW := files[0], files[1], files[2], files[3], files[4], files[5]
	proc, err := os.StartProcess(program, []string{program, fmt.Sprintf("--protocol=%d", wire.Version)}, &os.ProcAttr{
		Env:   append(environment(cfg.Environment), "GOTRACEBACK=none"),
		Files: []*os.File{reqR, repW, outW},
		Sys:   &syscall.SysProcAttr{HideWindow: true},
	})
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	closeAll([]*os.File{reqR, repW, outW})
	return &process{in: reqW, out: repR, proc: proc}, outR, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (p *process) kill() { _ = p.proc.Kill() }

func (p *process) wait() string {
	state, err := p.proc.Wait()
	if err != nil {
		return err.Error()
	}
	return state.String()
}

func (p *process) closePipes() {
	p.in.Close()
	p.out.Close()
}
