package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// startProxy runs the command over the environment until the test ends, and returns where it
// listens, such as 127.0.0.1:41234, and what it logs.
func startProxy(t *testing.T) (address string, log *lockedBuffer) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	read, write := io.Pipe()
	log = new(lockedBuffer)
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"proxy", "-listen", "127.0.0.1:0"}, write, log)
		_ = write.Close()
	}()
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatal(err, log.String())
	}
	t.Cleanup(func() {
		end()
		if got := <-code; got != exitOK {
			t.Errorf("the proxy ended with %d: %s", got, log.String())
		}
		showsNone(t, log.String(), rightPassword, privateQuery)
	})
	return strings.TrimSpace(strings.TrimPrefix(line, "http://")), log
}

// rawExchange sends bytes and returns all that comes back.
func rawExchange(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	mustDo(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	mustDo(t, err)
	answer, _ := io.ReadAll(conn) // a reset after the answer is an end as well
	return string(answer)
}

func TestProxyServesReadsAndIdempotentCalls(t *testing.T) {
	fake, _ := configure(t)
	address, log := startProxy(t)
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/managers/me?x=" + privateQuery, "", 200},
		{"HEAD", "/managers/me", "", 200},
		{"GET", "/assets/", "", 200},
		{"GET", "/info", "", 200},
		{"GET", "/assets/x/nothing", "", 403},
		{"PUT", "/assets/x/lock", "", 200},
		{"POST", "/assets/x/memo/set", `{"memo":"` + strings.Repeat("a", 1<<20) + `"}`, 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+address+tt.path, strings.NewReader(tt.body))
		mustDo(t, err)
		req.Header.Set("Authorization", "Bearer somebody-elses")
		req.Header.Set("Cookie", "sessionid=somebody-elses")
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultTransport.RoundTrip(req)
		mustDo(t, err)
		body, err := io.ReadAll(resp.Body)
		mustDo(t, err, resp.Body.Close())
		if resp.StatusCode != tt.status || resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %d %v %s", tt.method, tt.path, resp.StatusCode, resp.Header, body)
		}
		showsNone(t, fmt.Sprint(resp.Header, string(body)), fake.Token("issuer"))
	}
	if v := fake.Violations(); len(v) > 0 || fake.Count("POST /user/obtain_token") != 1 {
		t.Errorf("violations %q, %d logins", v, fake.Count("POST /user/obtain_token"))
	}
	eventually(t, "a line for each request", func() bool { return strings.Contains(log.String(), "POST /assets/x/memo/set 200 ") })
	if !strings.Contains(log.String(), "GET /managers/me 200 ") {
		t.Errorf("the log is %q", log.String())
	}
	showsNone(t, log.String(), fake.Token("issuer"))
}

func TestProxyTriesAgainAndRenewsTheToken(t *testing.T) {
	fake, _ := configure(t)
	address, _ := startProxy(t)
	read := func() string {
		return rawExchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n")
	}
	fake.Inject(fakeamp.Fault{Route: "GET /assets", Status: 503, Times: 2})
	if got := read(); !strings.HasPrefix(got, "HTTP/1.1 200 ") || fake.Count("GET /assets") != 3 {
		t.Errorf("%q after %d requests", got, fake.Count("GET /assets"))
	}
	fake.Revoke("issuer")
	if got := read(); !strings.HasPrefix(got, "HTTP/1.1 200 ") || fake.Count("POST /user/obtain_token") != 2 {
		t.Errorf("%q after %d logins", got, fake.Count("POST /user/obtain_token"))
	}
}

// over has the environment point at a server that does as the handler says, but logs in as
// the fake does.
func over(t *testing.T, handler http.HandlerFunc) (fake *fakeamp.Server) {
	t.Helper()
	fake, _ = configure(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/user/obtain_token" {
			fake.ServeHTTP(w, r)
			return
		}
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AMP_API_BASE_URL", server.URL+"/api")
	return fake
}

func TestProxyPassesOnOnlyWhatAMPNeeds(t *testing.T) {
	seen := make(chan http.Header, 1)
	over(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-Other", "kept")
		http.SetCookie(w, &http.Cookie{Name: "sessionid", Value: "x"})
	})
	address, _ := startProxy(t)
	got := rawExchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\n"+strings.Join([]string{
		"Connection: close, X-Request-Id, Keep-Alive", "X-Request-Id: 1", "Keep-Alive: 5", "Proxy-Authorization: Basic eDp5", "Te: trailers", "Trailer: X-Late",
		"Authorization: Bearer x", "Cookie: sessionid=y", "X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Host: evil.example",
		"Forwarded: for=evil.example", "Accept-Language: de", "Accept-Encoding: br", "Accept: application/json", "If-None-Match: \"1\"", "Expect: 100-continue",
	}, "\r\n")+"\r\n\r\n")
	header := <-seen
	if value := header["Authorization"]; len(value) != 1 || !strings.HasPrefix(value[0], "token ") {
		t.Error("the token is not there alone")
	}
	header.Del("Authorization")
	for name := range header {
		switch name {
		case "Accept", "If-None-Match", "User-Agent", "Accept-Encoding":
		default:
			t.Errorf("%s: %q arrived", name, header[name])
		}
	}
	if header.Get("Accept-Encoding") != "gzip" || header.Get("If-None-Match") != `"1"` {
		t.Errorf("%v", header)
	}
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate", "Set-Cookie"} {
		if strings.Contains(got, name) {
			t.Errorf("%s came back:\n%s", name, got)
		}
	}
	if !strings.Contains(got, "X-Other: kept") {
		t.Errorf("%s", got)
	}
}

func TestProxyAnswersWithASentence(t *testing.T) {
	for name, tt := range map[string]struct {
		fault  fakeamp.Fault
		status string
		want   string
	}{
		"credentials refused": {fakeamp.Fault{Route: "POST /user/obtain_token", Status: 400}, "502", "credentials were refused"},
		"no answer":           {fakeamp.Fault{Route: "GET /assets", Do: fakeamp.Reset, Times: -1}, "502", "request failed after 3 attempts"},
		"leads away":          {fakeamp.Fault{Route: "GET /assets", Status: 302, Header: http.Header{"Location": {"https://evil.example/api/?" + privateQuery}}}, "502", "not below the base URL"},
		"leads above":         {fakeamp.Fault{Route: "GET /assets", Status: 302, Header: http.Header{"Location": {"/admin"}}}, "502", "not below the base URL"},
		"leads on":            {fakeamp.Fault{Route: "GET /assets", Status: 302, Header: http.Header{"Location": {"/api/assets/?count=1"}}}, "302", "Location: /assets/?count=1\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			fake.Inject(tt.fault)
			address, log := startProxy(t)
			got := rawExchange(t, address, "GET /assets?"+privateQuery+" HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 "+tt.status) || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %s and %q", got, tt.status, tt.want)
			}
			showsNone(t, got+log.String(), privateQuery, rightPassword, fake.Token("issuer"))
		})
	}
}

// Each piece of either body arrives before the next one is sent.
func TestProxyStreamsBothWays(t *testing.T) {
	arrived := make(chan string)
	over(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		piece := make([]byte, 3)
		for range 2 {
			_, _ = io.ReadFull(r.Body, piece)
			arrived <- string(piece)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		for range 2 {
			fmt.Fprintf(w, "<%s>", <-arrived)
			_ = control.Flush()
		}
	})
	address, _ := startProxy(t)
	conn, err := net.Dial("tcp", address)
	mustDo(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /assets/x/edit HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n", address)
	for _, piece := range []string{"one", "two"} {
		fmt.Fprintf(conn, "3\r\n%s\r\n", piece)
		if got := <-arrived; got != piece {
			t.Errorf("%q arrived", got)
		}
	}
	fmt.Fprint(conn, "0\r\n\r\n")
	reader := bufio.NewReader(conn)
	arrived <- "six"
	resp, err := http.ReadResponse(reader, nil)
	mustDo(t, err)
	piece := make([]byte, 5)
	for _, want := range []string{"<six>", "<ten>"} {
		if _, err := io.ReadFull(resp.Body, piece); err != nil || string(piece) != want {
			t.Errorf("%q, %v", piece, err)
		}
		if want == "<six>" {
			arrived <- "ten"
		}
	}
}

func TestProxyIsMisusedAloud(t *testing.T) {
	configure(t)
	for args, want := range map[string]string{
		"-listen|0.0.0.0:8001":             "the host of -listen",
		"-listen|127.0.0.1:0|-unix|/tmp/x": "-listen and -unix exclude each other",
		"now":                              "takes no arguments",
		"-listen|evil.example:8001":        "the host of -listen",
	} {
		if got := runCommand(t.Context(), append([]string{"proxy"}, strings.Split(args, "|")...)...); got.code != exitUsage || !strings.Contains(got.stderr, want) || got.stdout != "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
	t.Setenv("AMP_USERNAME", "")
	if got := runCommand(t.Context(), "proxy"); got.code != exitError || !strings.Contains(got.stderr, "AMP_USERNAME") {
		t.Errorf("%+v", got)
	}
}

// One that is told to end answers what is under way, and then nobody any more.
func TestProxyEndsWhenWhatIsUnderWayIsAnswered(t *testing.T) {
	for _, signal := range endings {
		under, release := make(chan struct{}), make(chan struct{})
		fake := over(t, func(w http.ResponseWriter, r *http.Request) {
			close(under)
			<-release
			fmt.Fprint(w, "[]")
		})
		proxy := start(t, 1, "proxy", "-listen", "127.0.0.1:0")
		address := strings.TrimSpace(strings.TrimPrefix(proxy.stdout.String(), "http://"))
		got := make(chan string, 1)
		go func() {
			got <- rawExchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n")
		}()
		<-under
		mustDo(t, proxy.cmd.Process.Signal(signal))
		eventually(t, "nobody is let in any more", func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
		close(release)
		if answer := <-got; !strings.HasSuffix(answer, "[]") {
			t.Errorf("%q", answer)
		}
		<-proxy.read
		_ = proxy.cmd.Wait()
		printed := proxy.stdout.String() + proxy.stderr.String()
		if code := proxy.cmd.ProcessState.ExitCode(); code != exitOK || !strings.Contains(printed, "GET /assets 200 ") || !strings.Contains(printed, "ended after 1 requests") {
			t.Errorf("exit code %d: %s", code, printed)
		}
		showsNone(t, printed, rightPassword, fake.Token("issuer"))
	}
}

// The clients that people have.
func TestProxyServesOtherLanguages(t *testing.T) {
	for name, command := range map[string][]string{
		"curl":    {"curl", "--noproxy", "*", "-sS", "-f", "URL/managers/me"},
		"python3": {"python3", "-c", "import urllib.request as r; print(r.build_opener(r.ProxyHandler({})).open('URL/managers/me').read().decode())"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(command[0]); err != nil {
				t.Skipf("there is no %s here, so the proxy is not tried with it", name)
			}
			fake, _ := configure(t)
			address, _ := startProxy(t)
			args := strings.Split(strings.ReplaceAll(strings.Join(command, "\x00"), "URL", "http://"+address), "\x00")
			got, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(got), `{"username":"manager"`) {
				t.Errorf("%v: %s", err, got)
			}
			if v := fake.Violations(); len(v) > 0 {
				t.Errorf("%q", v)
			}
		})
	}
}
