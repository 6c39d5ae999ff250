package metadata

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// KnowsPeers reports whether this system tells who is at the other end.
const KnowsPeers = true

// peerOf asks the kernel who owns the socket at the other end.
func peerOf(c net.Conn) Peer {
	switch c := c.(type) {
	case *net.UnixConn:
		return unixPeer(c)
	case *net.TCPConn:
		remote, local := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
		uid, err := diagOwner(remote, local)
		if errors.Is(err, errNoDiag) {
			uid, err = procOwner(remote, local)
		}
		if err == nil {
			return Peer{UID: int64(uid), PID: -1}
		}
	}
	return unknownPeer
}

func unixPeer(c *net.UnixConn) Peer {
	raw, err := c.SyscallConn()
	if err != nil {
		return unknownPeer
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return unknownPeer
	}
	return Peer{UID: int64(cred.Uid), PID: int64(cred.Pid)}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

var (
	errNoDiag  = errors.New("no socket diagnostics")
	errNoOwner = errors.New("no such socket, or one that nobody holds")
)

const (
	sockDiagByFamily = 20
	diagRequestSize  = 16 + 56 // nlmsghdr, inet_diag_req_v2
	diagAnswerSize   = 16 + 72 // nlmsghdr, inet_diag_msg
)

// diagOwner returns the uid of the TCP socket that is bound to from and
// connected to to, by sock_diag(7). errNoDiag says that there is no such
// service here: a seccomp filter, an old kernel.
func diagOwner(from, to netip.AddrPort) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, errNoDiag
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return 0, errNoDiag
	}
	if err := unix.Sendto(fd, diagRequest(from, to), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, errNoDiag
	}
	b := make([]byte, 4096)
	n, sender, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return 0, errNoDiag
	}
	if s, ok := sender.(*unix.SockaddrNetlink); !ok || s.Pid != 0 {
		return 0, errNoDiag // only the kernel is believed
	}
	return parseDiag(b[:n])
}

func diagRequest(from, to netip.AddrPort) []byte {
	b := make([]byte, diagRequestSize)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], diagRequestSize)
	ne.PutUint16(b[4:], sockDiagByFamily)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	b[16], b[17] = unix.AF_INET, unix.IPPROTO_TCP
	if from.Addr().Is6() {
		b[16] = unix.AF_INET6
	}
	ne.PutUint32(b[20:], 0xffffffff) // every state
	binary.BigEndian.PutUint16(b[24:], from.Port())
	binary.BigEndian.PutUint16(b[26:], to.Port())
	copy(b[28:44], from.Addr().AsSlice())
	copy(b[44:60], to.Addr().AsSlice())
	ne.PutUint32(b[64:], 0xffffffff) // no cookie
	ne.PutUint32(b[68:], 0xffffffff)
	return b
}

func parseDiag(b []byte) (uint32, error) {
	ne := binary.NativeEndian
	if len(b) < 20 {
		return 0, errNoDiag
	}
	if ne.Uint16(b[4:]) == unix.NLMSG_ERROR {
		if syscall.Errno(-int32(ne.Uint32(b[16:]))) == syscall.ENOENT {
			return 0, errNoOwner
		}
		return 0, errNoDiag
	}
	if ne.Uint16(b[4:]) != sockDiagByFamily || len(b) < diagAnswerSize {
		return 0, errNoDiag
	}
	uid, inode := ne.Uint32(b[80:]), ne.Uint32(b[84:])
	if inode == 0 { // closed by its process: the kernel then says uid 0
		return 0, errNoOwner
	}
	return uid, nil
}

// procOwner is diagOwner by /proc/net/tcp and tcp6.
func procOwner(from, to netip.AddrPort) (uint32, error) {
	err := errNoOwner
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		uid, e := searchProc(path, from, to)
		if e == nil {
			return uid, nil
		}
		if !errors.Is(e, errNoOwner) {
			err = e
		}
	}
	return 0, err
}

func searchProc(path string, from, to netip.AddrPort) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || procAddr(fields[1]) != from || procAddr(fields[2]) != to || fields[9] == "0" {
			continue
		}
		uid, err := strconv.ParseUint(fields[7], 10, 32)
		return uint32(uid), err
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, errNoOwner
}

// procAddr reads an address as the kernel prints it: 32-bit words in its own
// byte order.
func procAddr(s string) netip.AddrPort {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n))
}
