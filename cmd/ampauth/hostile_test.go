package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
)

// answering is a server that logs everybody in, and answers everything else with these bytes.
func answering(t *testing.T, login, answer string) (base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				reply := answer
				if strings.HasSuffix(req.URL.Path, "/user/obtain_token") {
					reply = login
				}
				_, _ = io.WriteString(conn, reply)
			}()
		}
	}()
	return "http://" + l.Addr().String() + "/api"
}

// What a server says about itself is printed harmlessly, wherever it says it.
func TestServerCannotCommandATerminal(t *testing.T) {
	const (
		hostile = "\x1b]0;owned\x07\x1b[2J\u202e\u009b"
		body    = "{}"
	)
	answer := func(status, fields, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, fields, len(body), body)
	}
	token := answer("200 OK", "Content-Type: application/json\r\n", `{"token":"0123456789012345678901234567890123456789"}`)
	for name, test := range map[string]struct{ login, answer string }{
		"reason phrase":           {token, answer("500 "+hostile, "", body)},
		"status line":             {token, "HTTP/1.1 " + hostile + "\r\n\r\n"},
		"no HTTP":                 {token, hostile + "\r\n\r\n"},
		"type":                    {token, answer("400 Bad", "Content-Type: "+hostile+"\r\n", body)},
		"field name":              {token, answer("200 OK", hostile+": x\r\n", body)},
		"Location":                {token, answer("302 Found", "Location: "+hostile+"\r\n", body)},
		"Location elsewhere":      {token, answer("302 Found", "Location: http://127.0.0.1:1/"+hostile+"\r\n", body)},
		"Retry-After":             {token, answer("429 Too", "Retry-After: "+hostile+"\r\n", body)},
		"length":                  {token, "HTTP/1.1 200 OK\r\nContent-Length: " + hostile + "\r\n\r\n"},
		"chunk":                   {token, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + hostile + "\r\n"},
		"encoding":                {token, answer("200 OK", "Transfer-Encoding: "+hostile+"\r\n", body)},
		"body":                    {token, answer("500 Oh", "", hostile)},
		"login: reason":           {answer("400 "+hostile, "", body), ""},
		"login: type":             {answer("200 OK", "Content-Type: "+hostile+"\r\n", hostile), ""},
		"login: type of an error": {answer("403 No", "Content-Type: text/"+hostile+"\r\n", hostile), ""},
		"login: detail":           {answer("400 Bad", "Content-Type: application/json\r\n", `{"detail":"`+hostile+`"}`), ""},
		"login: token":            {answer("200 OK", "Content-Type: application/json\r\n", `{"token":"\u001b[2J\u0007"}`), ""},
		"login: raw token":        {answer("200 OK", "Content-Type: application/json\r\n", `{"token":"`+hostile+`"}`), ""},
		"login: redirect":         {answer("307 Away", "Location: http://"+hostile+"/\r\n", body), ""},
		"login: encoding":         {answer("200 OK", "Content-Encoding: "+hostile+"\r\n", body), ""},
		"login: no HTTP":          {hostile + "\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			configure(t)
			t.Setenv("AMP_API_BASE_URL", answering(t, test.login, test.answer))
			t.Setenv("API_RETRY_MAX_ATTEMPTS", "1")
			for _, args := range [][]string{{"get", "/assets"}, {"call", "DELETE", "/assets/1"}, {"token"}, {"header"}, {"doctor"}, {"doctor", "-json"}} {
				got := runCommand(t.Context(), args...)
				printed := got.stderr
				if args[0] != "get" && args[0] != "call" { // whose stdout is a file's, as it came
					printed += got.stdout
				}
				if strings.ContainsAny(printed, "\x1b\x07\u202e\u009b\r") {
					t.Errorf("%q: %+v", args, got)
				}
			}
		})
	}
}

func TestErrorsCannotCommandATerminal(t *testing.T) {
	hostile := errors.New("a\x1b[2J\u202e")
	for _, err := range []error{hostile, &url.Error{Op: "Get", URL: "x", Err: hostile}, &ampauth.Error{Op: "request", Kind: ampauth.ErrTimeout, Err: hostile}} {
		if got := withoutURL(err); strings.ContainsAny(got, "\x1b\u202e") || !strings.HasPrefix(got, "ampauth: ") {
			t.Errorf("%q", got)
		}
	}
}
