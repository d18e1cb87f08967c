package fakeamp_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// The server of net/http panics if it reads the next request while it still reads for the
// end of this body, however that comes to its end.
func TestConnectionEndsWithAnEarlyAnswer(t *testing.T) {
	for name, rest := range map[string]string{"the rest of the body": "0123456789", "another request as well": "0123456789GET /api/info HTTP/1.1\r\nHost: h\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			fake := fakeamp.New(fakeamp.Config{})
			defer fake.Close()
			var printed bytes.Buffer
			server := httptest.NewUnstartedServer(fake)
			server.Config.ErrorLog = log.New(&printed, "", 0)
			server.Start()
			fake.Inject(fakeamp.Fault{Status: 429, Do: fakeamp.EarlyAnswer})
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "POST /api/assets/issue HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n")
			reader := bufio.NewReader(conn)
			resp, err := http.ReadResponse(reader, nil)
			if err != nil || resp.StatusCode != 429 {
				t.Fatalf("%v, %v; want 429", resp, err)
			}
			if !resp.Close {
				t.Error("the answer does not end the connection")
			}
			io.Copy(io.Discard, resp.Body)
			fmt.Fprint(conn, rest)
			if more, err := io.ReadAll(reader); len(more) > 0 {
				t.Errorf("%q, %v after the answer", more, err)
			}
			server.Close()
			if printed.Len() > 0 {
				t.Errorf("the server printed %s", &printed)
			}
		})
	}
}
