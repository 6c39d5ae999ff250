package metadata

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// listenTCP opens a socket whose connections send packets with a TTL or hop
// limit: what is accepted inherits it.
func listenTCP(network, address string, hopLimit int) (net.Listener, error) {
	config := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		if hopLimit == 0 {
			return nil
		}
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			if network == "tcp6" {
				err = syscall.SetsockoptInt(syscall.Handle(fd), syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS, hopLimit)
			} else {
				err = syscall.SetsockoptInt(syscall.Handle(fd), syscall.IPPROTO_IP, syscall.IP_TTL, hopLimit)
			}
		})
		return errors.Join(controlErr, os.NewSyscallError("setsockopt", err))
	}}
	return config.Listen(context.Background(), network, address)
}

func isInUse(err error) bool {
	const wsaeaddrinuse = syscall.Errno(10048)
	return errors.Is(err, wsaeaddrinuse)
}
