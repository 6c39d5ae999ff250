//go:build unix

package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-iam/holdfast/signer"
)

// pollSlice bounds how late the end of a context is seen.
const pollSlice = 50 * time.Millisecond

// A fileWire is a TPM device of the kernel's, opened non-blocking: a write
// starts the command, and the device is readable when it has ended. Kernels
// before 4.20 block in the write instead.
type fileWire struct {
	fd  int
	buf [4096]byte
}

func openFile(_ context.Context, path string) (wire, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return &fileWire{fd: fd}, nil
	}
}

func (w *fileWire) exchange(ctx context.Context, command []byte) ([]byte, error) {
	if err := w.write(ctx, command); err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	rsp, err := readResponse(&pollReader{ctx: ctx, w: w}, make([]byte, headerSize))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	return rsp, nil
}

// write hands over the command, which the kernel takes whole.
func (w *fileWire) write(ctx context.Context, command []byte) error {
	for {
		n, err := unix.Write(w.fd, command)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY):
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		case err != nil:
			return err
		case n != len(command):
			return io.ErrShortWrite
		default:
			return nil
		}
	}
}

// A pollReader reads one response. Its first read takes all the kernel has:
// older kernels drop the rest.
type pollReader struct {
	ctx  context.Context
	w    *fileWire
	have []byte
}

func (r *pollReader) Read(p []byte) (int, error) {
	for len(r.have) == 0 {
		if err := r.wait(); err != nil {
			return 0, err
		}
		n, err := unix.Read(r.w.fd, r.w.buf[:])
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.ErrUnexpectedEOF
		}
		r.have = r.w.buf[:n]
	}
	n := copy(p, r.have)
	r.have = r.have[n:]
	return n, nil
}

// wait returns when the device can be read or the context ends.
func (r *pollReader) wait() error {
	fds := []unix.PollFd{{Fd: int32(r.w.fd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
	for {
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		n, err := unix.Poll(fds, int(pollSlice.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR), err == nil && n == 0:
		case err != nil:
			return err
		case fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0:
			return nil
		default:
			return fmt.Errorf("poll: %#x", fds[0].Revents)
		}
	}
}

func (w *fileWire) close() error { return unix.Close(w.fd) }

// checkAccess says early, and with the group to join, that a device may not be
// opened.
func checkAccess(spec, path string, info os.FileInfo) error {
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
	if err == nil || !errors.Is(err, unix.EACCES) {
		return nil
	}
	return signer.WithHint(fmt.Errorf("TPM %s: %w", spec, os.ErrPermission), accessHint(path, info))
}

func accessHint(path string, info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&0o060 != 0o060 || st.Gid == 0 {
		return "let the user that runs holdfast read and write " + path
	}
	group := strconv.Itoa(int(st.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("join the group that may use it: sudo usermod -aG %s \"$USER\", then log in anew", group)
}

// ownFile reports whether the file is this user's, in a directory that others
// can write to.
func ownFile(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
