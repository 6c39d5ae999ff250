package metadata

// A Peer is the process at the other end of a connection. What is not known is
// -1: the process of a TCP socket, and everything beyond this machine.
type Peer struct{ UID, PID int64 }

var unknownPeer = Peer{-1, -1}
