package tpm

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// A context that ends as the answer comes does not reach over to the next
// command, which has another context.
func TestLateCancel(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	rsp := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0}
	cancels := make(chan context.CancelFunc, 1)
	go func() {
		buf := make([]byte, 12)
		for {
			if _, err := io.ReadFull(there, buf); err != nil {
				return
			}
			if _, err := there.Write(rsp); err != nil {
				return
			}
			(<-cancels)()
		}
	}()
	w := &streamWire{conn: here}
	for i := range 3000 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if i%2 == 0 {
			cancels <- cancel
		} else {
			cancels <- func() {}
		}
		_, err := w.exchange(ctx, make([]byte, 12))
		cancel()
		if err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
	}
}
