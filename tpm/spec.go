package tpm

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// DefaultDevice is the TPM that is meant when none is named, on Linux.
const DefaultDevice = "/dev/tpmrm0"

// Open opens the TPM that spec names:
//
//	""                              $TPM_DEVICE, else /dev/tpmrm0, on Windows TBS
//	/dev/tpmrm0  device:/dev/tpmrm0  a device; /dev/tpm0 only when it is named
//	/run/x.sock  unix:/run/x.sock    the socket of a software TPM
//	swtpm:path=/run/x.sock           the same, as tpm2-tss writes it
//	tcp:localhost:2321               a software TPM on TCP, raw framing
//	swtpm:host=localhost,port=2321   the same, as tpm2-tss writes it
//	tbs                              Windows' TPM Base Services
//
// The TPM is reached at its first use, but a device or socket that does not
// exist or may not be opened is an error at once: one that wraps
// signer.ErrTokenNotFound, or fs.ErrPermission with a hint.
func (c Config) Open(ctx context.Context, spec string) (*Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if spec == "" {
		spec = os.Getenv("TPM_DEVICE")
	}
	p, err := parseSpec(spec)
	if err != nil {
		return nil, err
	}
	return c.device(p), nil
}

func parseSpec(spec string) (place, error) {
	if spec == "" {
		if runtime.GOOS == "windows" {
			return tbsPlace()
		}
		return pathPlace(DefaultDevice, DefaultDevice)
	}
	if filepath.IsAbs(spec) {
		return pathPlace(spec, spec)
	}
	scheme, rest, _ := strings.Cut(spec, ":")
	// tpm2-tss takes the name of a library as well.
	scheme = strings.TrimPrefix(scheme, "libtss2-tcti-")
	scheme, _, _ = strings.Cut(scheme, ".so")
	switch scheme {
	case "device":
		if rest == "" {
			rest = DefaultDevice
		}
		return pathPlace(spec, rest)
	case "unix":
		return pathPlace(spec, rest)
	case "swtpm":
		return swtpmPlace(spec, rest)
	case "tcp":
		host, port, err := net.SplitHostPort(rest)
		if err != nil || port == "" {
			return place{}, badSpec(spec, "tcp: wants host:port")
		}
		return tcpPlace(spec, host, port), nil
	case "tbs":
		return tbsPlace()
	case "mssim", "tabrmd", "pcap", "cmd", "spi-helper", "i2c-helper":
		return place{}, badSpec(spec, "holdfast reaches TPMs by a device, a swtpm socket or TBS, not by "+scheme)
	}
	if strings.ContainsAny(spec, `/\`) || !strings.Contains(spec, ":") {
		return pathPlace(spec, spec)
	}
	return place{}, badSpec(spec, "an unknown kind of TPM")
}

// swtpmPlace reads the configuration of tpm2-tss's swtpm TCTI.
func swtpmPlace(spec, conf string) (place, error) {
	host, port := "localhost", "2321"
	for _, kv := range strings.Split(conf, ",") {
		if kv == "" {
			continue
		}
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "path":
			return pathPlace(spec, v)
		case "host":
			host = v
		case "port":
			port = v
		default:
			return place{}, badSpec(spec, fmt.Sprintf("swtpm: knows path, host and port, not %q", k))
		}
	}
	return tcpPlace(spec, host, port), nil
}

func badSpec(spec, why string) error {
	return signer.WithHint(fmt.Errorf("TPM %q: %s", spec, why),
		"name a device (/dev/tpmrm0), a socket (swtpm:path=/run/swtpm.sock) or a port (swtpm:host=localhost,port=2321)")
}

func tcpPlace(spec, host, port string) place {
	addr := net.JoinHostPort(host, port)
	id := addr
	if host == "localhost" || host == "::1" {
		id = net.JoinHostPort("127.0.0.1", port)
	}
	return place{name: spec, id: "tcp:" + id, shared: true, dial: func(ctx context.Context) (wire, error) {
		return dialStream(ctx, "tcp", addr)
	}}
}

// pathPlace tells a device from a socket.
func pathPlace(spec, path string) (place, error) {
	p := place{name: spec, path: path}
	info, err := os.Stat(path)
	if err != nil {
		return p, noDevice(spec, path, err)
	}
	real := path
	if r, err := filepath.EvalSymlinks(path); err == nil {
		real = r
	}
	if abs, err := filepath.Abs(real); err == nil {
		real = abs
	}
	switch mode := info.Mode(); {
	case mode&os.ModeSocket != 0:
		p.id, p.shared = "unix:"+real, true
		p.dial = func(ctx context.Context) (wire, error) { return dialStream(ctx, "unix", path) }
		return p, checkAccess(spec, path, info)
	case mode&os.ModeCharDevice != 0:
		p.managed = strings.HasPrefix(filepath.Base(real), "tpmrm")
		p.id, p.shared = "device:"+real, !p.managed
		p.dial = func(ctx context.Context) (wire, error) { return openFile(ctx, path) }
		return p, checkAccess(spec, path, info)
	default:
		return p, badSpec(spec, "neither a device nor a socket")
	}
}

func noDevice(spec, path string, err error) error {
	hint := ""
	switch {
	case os.IsNotExist(err) && path == DefaultDevice:
		hint = "is there a TPM 2.0, switched on in the firmware, and a kernel of 4.12 or later? A TPM elsewhere is named in TPM_DEVICE"
	case os.IsNotExist(err):
		hint = "check the path, and that the software TPM runs"
	case os.IsPermission(err):
		hint = "let the user that runs holdfast enter the directories that it lies in"
	}
	return signer.WithHint(fmt.Errorf("TPM %s: %w: %w", spec, signer.ErrTokenNotFound, err), hint)
}
