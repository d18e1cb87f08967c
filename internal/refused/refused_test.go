package refused

import (
	"fmt"
	"io"
	"net"
	"testing"
)

func TestRefusedConnectionIsTold(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err == nil {
		_ = conn.Close()
		t.Skip("somebody else listens there now")
	}
	if !Is(fmt.Errorf("wrapped: %w", err)) {
		t.Errorf("%v is not taken for a refused connection", err)
	}
	if Is(io.EOF) || Is(nil) {
		t.Error("something else is taken for one")
	}
}
