//go:build linux

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTPMOfOthers runs the program as a user who may not use the
// TPM, for root may use all.
func TestTPMOfOthers(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "holdfast")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	path, err := exec.LookPath("holdfast")
	must(t, err)
	program, err := os.ReadFile(path)
	must(t, err)
	key, err := os.ReadFile("../../testdata/tpm/openssl-p256.pem")
	must(t, err)
	exe := filepath.Join(dir, "holdfast")
	must(t, errors.Join(os.WriteFile(exe, program, 0o755), os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o644), os.Mkdir(filepath.Join(dir, "log"), 0o700)))
	must(t, os.Chmod(filepath.Join(dir, "log"), 0o777))

	device, group, me := closedDevice(t, dir)
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	must(t, err)
	defer l.Close()
	must(t, os.Chmod(socket, 0))
	for path, hint := range map[string]string{
		device: "join the group that may use it: sudo usermod -aG " + group + " \"$USER\", then log in anew",
		socket: "let the user that runs holdfast read and write " + socket,
	} {
		cmd := exec.Command(exe, "sign-string", "--private-key", "key.pem", "--tpm-device", path)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), logDir+"="+filepath.Join(dir, "log"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: me}
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		want := "holdfast: error: TPM " + path + ": permission denied\nholdfast: hint: " + hint + "\n"
		if cmd.ProcessState.ExitCode() != exitIdentity || stdout.String() != "" || stderr.String() != want {
			t.Errorf("exit code %d, stdout %q, stderr %q, want %q", cmd.ProcessState.ExitCode(), &stdout, &stderr, want)
		}
	}
}

// closedDevice returns a device that only a group may use, and who is not in it:
// for root one that is made, of the group that TPMs are, else one there is.
func closedDevice(t *testing.T, dir string) (path, group string, me *syscall.Credential) {
	t.Helper()
	if os.Geteuid() != 0 {
		devices, err := filepath.Glob("/dev/*")
		must(t, err)
		inner, err := filepath.Glob("/dev/*/*")
		must(t, err)
		for _, path := range append(devices, inner...) {
			var st unix.Stat_t
			if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Mode&0o066 != 0o060 || st.Gid == 0 || unix.Access(path, unix.R_OK|unix.W_OK) == nil {
				continue
			}
			return path, groupName(int(st.Gid)), nil
		}
		t.Fatal("no device in /dev is closed to this user and open to a group: run this test as root")
	}
	group = "tss"
	g, err := user.LookupGroup(group)
	if err != nil {
		t.Fatalf("%v; install tpm2-tools' libraries: apt-get install tpm-udev", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	must(t, err)
	path = filepath.Join(dir, "tpmrm0")
	must(t, unix.Mknod(path, unix.S_IFCHR|0o660, int(unix.Mkdev(1, 3)))) // /dev/null's
	must(t, errors.Join(os.Chmod(path, 0o660), os.Chown(path, 0, gid)))
	return path, group, &syscall.Credential{Uid: 54321, Gid: 54321}
}

func groupName(gid int) string {
	g, err := user.LookupGroupId(strconv.Itoa(gid))
	if err != nil {
		return strconv.Itoa(gid)
	}
	return g.Name
}
