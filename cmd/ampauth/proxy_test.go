package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

// exchange sends bytes and returns all that comes back.
func exchange(t *testing.T, address, request string) string {
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

// No request of these reaches AMP.
func TestProxyRefusesWhatIsHostile(t *testing.T) {
	fake, _ := configure(t)
	address, _ := startProxy(t)
	_, port, _ := net.SplitHostPort(address)
	request := func(line string, fields ...string) string {
		head := line + " HTTP/1.1\r\n"
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "Host:") {
			head += "Host: " + address + "\r\n"
		}
		return head + strings.Join(append(fields, "Connection: close"), "\r\n") + "\r\n\r\n"
	}
	tests := map[string]struct {
		request string
		status  int
	}{
		"rebound name":               {request("GET /assets", "Host: evil.example:"+port), 421},
		"rebound name without port":  {request("GET /assets", "Host: evil.example"), 421},
		"localhost as a prefix":      {request("GET /assets", "Host: localhost.evil.example:"+port), 421},
		"address as a prefix":        {request("GET /assets", "Host: 127.0.0.1.evil.example:"+port), 421},
		"another port":               {request("GET /assets", "Host: 127.0.0.1:1"), 421},
		"no port":                    {request("GET /assets", "Host: 127.0.0.1"), 421},
		"user information in Host":   {request("GET /assets", "Host: a@"+address), 400},
		"empty Host":                 {request("GET /assets", "Host:"), 421},
		"no Host":                    {"GET /assets HTTP/1.0\r\n\r\n", 421},
		"Origin of another page":     {request("GET /assets", "Origin: https://evil.example"), 403},
		"Origin null":                {request("GET /assets", "Origin: null"), 403},
		"Origin of the proxy itself": {request("GET /assets", "Origin: http://"+address), 403},
		"empty Origin":               {request("GET /assets", "Origin:"), 403},
		"image in a page":            {request("GET /assets", "Sec-Fetch-Site: cross-site"), 403},
		"page of the same site":      {request("GET /assets", "Sec-Fetch-Site: same-site"), 403},
		"page of the proxy itself":   {request("GET /assets", "Sec-Fetch-Site: same-origin"), 403},
		"two Sec-Fetch-Site":         {request("GET /assets", "Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"), 403},
		"preflight":                  {request("OPTIONS /assets", "Origin: https://evil.example", "Access-Control-Request-Method: PUT"), 403},
		"CONNECT":                    {"CONNECT evil.example:443 HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n", 421},
		"CONNECT to itself":          {"CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n", 405},
		"whole URL":                  {request("GET http://" + address + "/assets"), 400},
		"whole URL of elsewhere":     {request("GET http://evil.example/assets"), 421},
		"OPTIONS *":                  {request("OPTIONS *"), 400},
		"Upgrade":                    {"GET /assets HTTP/1.1\r\nHost: " + address + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400},
		"Upgrade to HTTP/2":          {"GET /assets HTTP/1.1\r\nHost: " + address + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 400},
		"Connection: upgrade alone":  {"GET /assets HTTP/1.1\r\nHost: " + address + "\r\nConnection: close, uPgrade\r\n\r\n", 400},
		"dots":                       {request("GET /../admin"), 400},
		"dots within":                {request("GET /assets/../../admin"), 400},
		"one dot":                    {request("GET /./assets"), 400},
		"dots at the end":            {request("GET /assets/.."), 400},
		"escaped dots":               {request("GET /%2e%2e/admin"), 400},
		"half escaped dots":          {request("GET /.%2E/admin"), 400},
		"dots escaped twice":         {request("GET /%252e%252e/admin"), 400},
		"dots escaped three times":   {request("GET /%25252e%25252e/admin"), 400},
		"dots with a parameter":      {request("GET /..;/admin"), 400},
		"dots with parameter x":      {request("GET /..;x=1/admin"), 400},
		"dots, escaped semicolon":    {request("GET /..%3b/admin"), 400},
		"escaped slash":              {request("GET /..%2fadmin"), 400},
		"escaped slash in a segment": {request("GET /assets/x%2Fregister"), 400},
		"backslash":                  {request(`GET /..\admin`), 400},
		"escaped backslash":          {request("GET /..%5cadmin"), 400},
		"two slashes":                {request("GET //evil.example/assets"), 400},
		"two slashes within":         {request("GET /assets//register"), 400},
		"three slashes":              {request("GET ///assets"), 400},
		"escaped zero":               {request("GET /assets%00/x"), 400},
		"escaped line break":         {request("GET /assets/%0d%0aX:%20y"), 400},
		"overlong dots":              {request("GET /%c0%ae%c0%ae/admin"), 400},
		"escaped fragment":           {request("GET /assets#x"), 400},
		"broken escape":              {request("GET /assets/%zz"), 400},
		"no slash":                   {request("GET assets"), 400},
		"issuance":                   {request("POST /assets/issue", "Content-Length: 2") + "{}", 403},
		"a mutation by GET":          {request("GET /assets/x/register"), 403},
		"distribution by GET":        {request("GET /assets/x/distributions/create/"), 403},
		"the same by HEAD":           {request("HEAD /assets/x/distributions/create/"), 403},
		"the same, escaped":          {request("GET /assets/x/distributions/%63reate"), 403},
		"unknown route":              {request("GET /admin"), 403},
		"unknown method":             {request("TRACE /assets"), 403},
		"method in lower case":       {request("get /assets"), 403},
		"method by a field":          {request("DELETE /assets", "X-HTTP-Method-Override: GET"), 403},
		"login":                      {request("POST /user/obtain_token", "Content-Length: 2") + "{}", 403},
		"login, escaped":             {request("POST /user/obtain%5Ftoken", "Content-Length: 2") + "{}", 403},
		"login below another path":   {request("POST /x/user/obtain_token/", "Content-Length: 2") + "{}", 403},
		"refresh":                    {request("GET /user/refresh-token"), 403},
		"password":                   {request("POST /user/change-password", "Content-Length: 2") + "{}", 403},
		"GET with a body":            {request("GET /assets", "Content-Length: 2") + "{}", 400},
		"GET with chunks":            {request("GET /assets", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", 400},
		"two lengths":                {request("PUT /assets/x/lock", "Content-Length: 2", "Content-Length: 3") + "{}", 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := exchange(t, address, tt.request)
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tt.status)) && !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.0 %d ", tt.status)) {
				t.Errorf("%q is answered %q, want %d", tt.request, got, tt.status)
			}
			if head, body, _ := strings.Cut(got, "\r\n\r\n"); strings.Contains(head, "application/json") && body != "" {
				var why map[string]string
				if err := json.Unmarshal([]byte(body), &why); err != nil || len(why["detail"]) < 10 {
					t.Errorf("%q says not why: %q", tt.request, got)
				}
			}
		})
	}
	if counts := fake.Counts(); len(counts) > 0 {
		t.Errorf("AMP was asked for %v", counts)
	}
}

func TestProxyLetsWhatAUserTypesPass(t *testing.T) {
	configure(t)
	address, _ := startProxy(t)
	_, port, _ := net.SplitHostPort(address)
	for _, fields := range []string{"Host: " + address + "\r\nSec-Fetch-Site: none", "Host: LOCALHOST:" + port, "Host: [::1]:" + port} {
		if got := exchange(t, address, "GET /managers/me HTTP/1.1\r\n"+fields+"\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%q: %q", fields, got)
		}
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
	got := exchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\n"+strings.Join([]string{
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

// A server in between may answer with the request that it got.
func TestProxyNeverAnswersWithTheToken(t *testing.T) {
	echo := func(r *http.Request) string { return r.Header.Get("Authorization") }
	for name, handler := range map[string]http.HandlerFunc{
		"in a field": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Debug", "got "+echo(r)) },
		"in the body": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s you sent %s, did you not", strings.Repeat("a", 100_000), echo(r))
		},
		"in pieces": func(w http.ResponseWriter, r *http.Request) {
			for _, c := range "you sent " + echo(r) {
				fmt.Fprintf(w, "%c", c)
				_ = http.NewResponseController(w).Flush()
			}
		},
		"in a trailer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Debug")
			fmt.Fprint(w, "body")
			w.Header().Set("X-Debug", echo(r))
		},
		"in a trailer unannounced": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "body")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Debug", echo(r))
		},
		"in an early hint": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", echo(r))
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
		},
		"in a redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/api/assets?token="+echo(r)[6:])
			w.WriteHeader(http.StatusFound)
		},
		"in an error": func(w http.ResponseWriter, r *http.Request) { http.Error(w, echo(r), http.StatusInternalServerError) },
		"packed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "rot13")
			fmt.Fprint(w, echo(r))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := over(t, handler)
			address, log := startProxy(t)
			got := exchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\nTe: trailers\r\nConnection: close\r\n\r\n")
			token := fake.Token("issuer")
			// A chunked body has the lengths of its pieces in between.
			plain := strings.NewReplacer("\r\n1\r\n", "", "\r\n", "").Replace(got)
			if token == "" || !strings.HasPrefix(got, "HTTP/1.1 ") {
				t.Fatalf("no token, or no answer: %q", got)
			}
			showsNone(t, got+plain+log.String(), token)
		})
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
			got := exchange(t, address, "GET /assets?"+privateQuery+" HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n")
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
			got <- exchange(t, address, "GET /assets HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n\r\n")
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

func TestProxysSocketIsOfItsUserAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	configure(t)
	dir, err := os.MkdirTemp("", "amp") // the path of a socket has to be short
	mustDo(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	proxy := start(t, 1, "proxy", "-unix", path)
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://localhost/managers/me")
	mustDo(t, err)
	mustDo(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Errorf("HTTP %d", resp.StatusCode)
	}
	client.CloseIdleConnections()
	if got := runCommand(t.Context(), "proxy", "-unix", path); got.code != exitError || !strings.Contains(got.stderr, "somebody may listen") {
		t.Errorf("a second one: %+v", got)
	}
	mustDo(t, proxy.cmd.Process.Kill())
	<-proxy.read
	_ = proxy.cmd.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("a killed process leaves its socket, and this one did not")
	}
	proxy = start(t, 1, "proxy", "-unix", path) // in the place of the one that nobody listens on
	if got := proxy.stop(endings[1]); got.code != exitOK || got.stdout != "unix:"+path+"\n" {
		t.Errorf("%+v", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
	mustDo(t, os.WriteFile(path, []byte("precious"), 0o600))
	if got := runCommand(t.Context(), "proxy", "-unix", path); got.code != exitError || !strings.Contains(got.stderr, "no socket") {
		t.Errorf("%+v", got)
	}
	if got := runCommand(t.Context(), "proxy", "-unix", filepath.Join(dir, strings.Repeat("a", 200), "s")); got.code != exitError {
		t.Errorf("%+v", got)
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
