package fakeamp_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestViolationsAreReported(t *testing.T) {
	tests := []struct {
		name, method, path, body string
		header                   []string
		want                     string
	}{
		{name: "authorization on login", method: "POST", path: "/user/obtain_token", body: login, header: []string{"Authorization", "token x"}, want: "POST /user/obtain_token: login with an Authorization header"},
		{name: "cookie on login", method: "POST", path: "/user/obtain_token", body: login, header: []string{"Cookie", "csrftoken=x"}, want: "POST /user/obtain_token: login with a Cookie header"},
		{name: "two authorizations", method: "GET", path: "/assets", header: []string{"Authorization", "token x|token y"}, want: "GET /assets: more than one Authorization header"},
		{name: "password field", method: "POST", path: "/assets/issue", body: `{"password":"some other"}`, want: "POST /assets/issue: password in the body"},
		{name: "password as a form", method: "POST", path: "/assets/issue", body: `username=a&password=b`, want: "POST /assets/issue: password in the body"},
		{name: "password in a value", method: "POST", path: "/assets/" + someAsset + "/memo/set", body: `"correct horse"`, want: "POST /assets/{assetUuid}/memo/set: password in the body"},
		{name: "login sent elsewhere", method: "POST", path: "/elsewhere/SECRET", body: login, want: "unknown route: password in the body"},
		{name: "token in the query", method: "GET", path: "/assets?key=TOKEN", want: "GET /assets: token or password in the query"},
		{name: "password in the query", method: "GET", path: "/assets?key=correct%20horse", want: "GET /assets: token or password in the query"},
		{name: "body on GET", method: "GET", path: "/assets", body: `{}`, want: "GET /assets: body on a GET"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake, c := start(t, fakeamp.Config{})
			token := fake.Rotate("issuer")
			c.do(tt.method, strings.Replace(tt.path, "TOKEN", token, 1), tt.body, tt.header...)
			got := fake.Violations()
			if len(got) != 1 || got[0] != tt.want {
				t.Errorf("violations %q, want %q", got, tt.want)
			}
			for _, secret := range []string{token, "correct horse", "SECRET"} {
				if strings.Contains(strings.Join(got, "\n"), secret) {
					t.Errorf("violations %q hold a secret", got)
				}
			}
		})
	}
}

func TestGoodRequestsAreNoViolations(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	c.do("POST", "/user/obtain_token", login)
	c.token = fake.Token("issuer")
	c.do("GET", "/assets?sortorder=asc&start=1&count=100000&height_start=1&height_stop=2", "")
	c.do("POST", "/assets/issue", `{"name":"Bond"}`)
	c.do("POST", "/managers/create", `{"username":"m","password":"its password"}`)
	c.do("POST", "/managers/7/change-password", `{"password":"another one"}`)
	c.do("POST", "/user/change-password", `{"password":"battery staple"}`)
	if got := fake.Violations(); len(got) > 0 {
		t.Errorf("violations: %q", got)
	}
}

func TestHalfARequestIsAViolationAndNotPerformed(t *testing.T) {
	for _, expect := range []bool{false, true} {
		fake, c := startLoggedIn(t)
		address := strings.TrimSuffix(strings.TrimPrefix(c.base, "http://"), "/api")
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		request := "POST /api/assets/issue HTTP/1.1\r\nHost: amp.test\r\nAuthorization: token " + c.token +
			"\r\nContent-Length: 100\r\n"
		want := 1
		if expect {
			request += "Expect: 100-continue\r\n"
			want = 0
		}
		io.WriteString(conn, request+"\r\n{}")
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		io.ReadAll(conn) // Until the server has given up.
		conn.Close()

		if got := fake.Violations(); len(got) != want {
			t.Errorf("Expect %v: violations %q, want %d", expect, got, want)
		}
		if got := fake.Effects(); len(got) > 0 {
			t.Errorf("Expect %v: effects %v, want none", expect, got)
		}
	}
}
