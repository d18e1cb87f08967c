package hostile

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
)

// serveHTTP1 serves the requests of a connection, one after the other.
func (c *conn) serveHTTP1() {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		c.requests++
		entry := &Entry{
			Exchange: Exchange{
				Conn:   c.number,
				OnConn: c.requests,
				Proto:  req.Proto,
				Method: req.Method,
				Path:   req.URL.Path,
				Header: req.Header,
			},
			Whole: req.ContentLength == 0,
		}
		c.server.enter(entry)
		x := &exchange{
			server:   c.server,
			entry:    entry,
			body:     bufio.NewReader(req.Body),
			declared: req.ContentLength,
			expects:  expectsContinue(req.Header),
		}
		answer := &http1Answer{conn: c, r: r, close: req.Close}
		x.peer = answer
		if !x.play() || answer.close {
			return
		}
	}
}

// http1Answer is the peer of HTTP/1.1.
type http1Answer struct {
	*conn
	r       *bufio.Reader
	close   bool // one of the two said so
	chunked bool
}

func (a *http1Answer) claim(bool) bool { return true }

func (a *http1Answer) seal() {} // no request is read before this one is done

func (a *http1Answer) inform(status int) error {
	_, err := fmt.Fprintf(a.conn, "HTTP/1.1 %d %s\r\n\r\n", status, http.StatusText(status))
	return err
}

func (a *http1Answer) header(step Step, length int, last bool) error {
	a.close = a.close || step.Close
	a.chunked = length < 0 && !last
	_, err := a.conn.Write(a.headerBytes(step, length))
	return err
}

// headerBytes writes the header out by hand, since net/http would clean it up.
func (a *http1Answer) headerBytes(step Step, length int) []byte {
	var b bytes.Buffer
	status := step.status()
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for _, name := range slices.Sorted(maps.Keys(step.Header)) {
		for _, value := range step.Header[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	framed := step.Header["Content-Length"] != nil || step.Header["Transfer-Encoding"] != nil
	switch {
	case framed || bodiless(status):
	case length < 0:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	default:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", length)
	}
	if a.close {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

func (a *http1Answer) write(p []byte) error {
	if a.chunked {
		p = slices.Concat(fmt.Appendf(nil, "%x\r\n", len(p)), p, []byte("\r\n"))
	}
	_, err := a.conn.Write(p)
	return err
}

func (a *http1Answer) finish() error {
	if !a.chunked {
		return nil
	}
	_, err := io.WriteString(a.conn, "0\r\n\r\n")
	return err
}

func (a *http1Answer) cutHeader(step Step) {
	header := a.headerBytes(step, len(step.body()))
	a.conn.Write(header[:len(header)/2])
}

func (a *http1Answer) cutChunk() { io.WriteString(a.conn, "1f") }

func (a *http1Answer) garbage(step Step) bool {
	text := step.Body
	if text == "" {
		text = "no HTTP/1.1 200 OK\r\n\r\n"
	}
	io.WriteString(a.conn, text)
	return false
}

func (a *http1Answer) switchProtocols(step Step) {
	step.Status = http.StatusSwitchingProtocols
	step.Header = maps.Clone(step.Header)
	if step.Header == nil {
		step.Header = make(http.Header)
	}
	step.Header["Connection"] = []string{"Upgrade"}
	if step.Header["Upgrade"] == nil {
		step.Header["Upgrade"] = []string{"echo"}
	}
	a.close = false // it has nothing to say about what follows
	if _, err := a.conn.Write(a.headerBytes(step, 0)); err == nil {
		io.Copy(a.conn, a.r)
	}
}

func (a *http1Answer) resetStream(uint32) { a.hangUp(true) }

func (a *http1Answer) goAway(uint32, LastStream) bool {
	a.hangUp(false)
	return false
}

func (a *http1Answer) stall(drain bool) {
	if drain {
		io.Copy(io.Discard, a.r) // ends when the client leaves
		return
	}
	// Without reading there is no telling whether it has left.
	<-a.server.done
}
