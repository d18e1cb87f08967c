package bench

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// earlyAnswers counts the answers that do not arrive, when a server gives them to a
// large upload without reading it, and closes the connection.
func earlyAnswers(o Options) (Section, error) {
	const size, full = 512 << 10, 180
	contestants := []layer{{"ampauth", ampauthStack}, {carefulPair.Name, overHTTP1(carefulPair.Over)}}
	servers := []struct {
		name   string
		answer func(w http.ResponseWriter, status int)
	}{
		{"net/http", http.ResponseWriter.WriteHeader},
		{"by hand", answerAndClose},
	}
	statuses := []int{http.StatusUnauthorized, http.StatusRequestEntityTooLarge}
	each := full / len(servers) / len(statuses)
	if o.Quick {
		each = 12
	}
	heads := []string{"contestant"}
	for _, s := range servers {
		for _, status := range statuses {
			heads = append(heads, fmt.Sprintf("lost %d, server %s", status, s.name))
		}
	}
	t, ours := table("", append(heads, "in all")...), 0
	for i, c := range contestants {
		row, lost := []string{c.Name}, 0
		for _, s := range servers {
			for _, status := range statuses {
				n, err := lostAnswers(c, func(w http.ResponseWriter) { s.answer(w, status) }, status, size, each)
				if err != nil {
					return Section{}, fmt.Errorf("%s: %w", c.Name, err)
				}
				row, lost = append(row, fmt.Sprint(n)), lost+n
			}
		}
		sent := each * len(servers) * len(statuses)
		t.add(append(row, fmt.Sprintf("%d of %d", lost, sent))...)
		if i == 0 {
			ours = lost
		}
		o.progress(i+1, len(contestants))
	}
	return Section{
		Text:   fmt.Sprintf("A POST of %s over TLS, HTTP/1.1. The server answers 401 or 413 before it has read the body, and closes the connection: as net/http does it, and by hand (answer, close_notify and FIN, 50 ms of reading, close). Lost are calls that end in an error, or in anything but that answer. Every call is by a client of its own; every other one has sent a mutation before, so that the upload may go over a used connection.", asBytes(size)),
		Tables: []Table{t},
		Goals: []Goal{rarely("answers lost that come before the upload has ended", "itself", 0, full, ours,
			each*len(servers)*len(statuses))},
	}, nil
}

// lostAnswers sends n uploads and returns how many were not answered with status.
func lostAnswers(c layer, answer func(http.ResponseWriter), status, size, n int) (lost int, err error) {
	server := serve(true, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < int64(size) {
			answerTwoBytes(w, r)
			return
		}
		answer(w)
	})
	defer server.Close()
	for i := range n {
		base := server.transport(4)
		s := server.setup(base)
		s.Timeout, s.BaseDelay, s.MaxDelay = timeoutOfAttempt, time.Millisecond, 10*time.Millisecond
		send := c.Over(s)
		if i%2 == 1 {
			if err := finish(send(post(server.apiURL()+"/assets/issue", 1<<10).again())); err != nil {
				return 0, err
			}
		}
		resp, err := send(post(server.apiURL()+"/assets/issue", size).again())
		if err != nil || resp.StatusCode != status {
			lost++
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		base.CloseIdleConnections()
	}
	return lost, nil
}

// answerAndClose answers over HTTP/1.1, ends its side of the connection, reads for a
// moment, so that no reset overtakes the answer, and closes.
func answerAndClose(w http.ResponseWriter, status int) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: 2\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}", status, http.StatusText(status))
	endWriting(conn)
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, _ = io.Copy(io.Discard, conn)
}
