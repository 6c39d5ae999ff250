package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A passedSocket is one that systemd opened.
type passedSocket struct {
	name     string
	listener net.Listener
}

const firstPassedFD = 3 // SD_LISTEN_FDS_START

// passedSockets takes over the sockets of sd_listen_fds(3). The variables are
// taken away, so that no child takes them for its own.
func passedSockets() ([]passedSocket, error) {
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	forUs := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, v := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(v) // its error is a malformed name
	}
	if err != nil || !forUs {
		return nil, nil
	}
	var sockets []passedSocket
	for i := range count {
		name := "unknown" // as systemd calls it
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		file := os.NewFile(uintptr(firstPassedFD+i), name)
		listener, err := net.FileListener(file)
		_ = file.Close() // the listener has its own
		if err != nil {
			return nil, fmt.Errorf("socket %q passed by systemd: %w", name, err)
		}
		if u, ok := listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // it is systemd's
		}
		sockets = append(sockets, passedSocket{name, listener})
	}
	return sockets, nil
}

// notify tells systemd of a state, as sd_notify(3) does. Without systemd it
// does nothing.
func notify(log *slog.Logger, state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		_ = c.Close() // a datagram is sent or not by now
	}
	if err != nil {
		log.Warn("notify systemd", "error", err.Error())
	}
}

// watchdogTicks returns when to send a sign of life, twice as often as systemd
// wants to see one; never, if it wants none.
func watchdogTicks() (<-chan time.Time, func()) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || usec <= 1 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, func() {}
	}
	t := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
	return t.C, t.Stop
}
