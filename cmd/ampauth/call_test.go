package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

const assetBody = `{"name":"canary-body","ticker":"T","domain":"example.com"}`

// fileWith returns the path of a file with that content.
func fileWith(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "body")
	mustDo(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// callAMP runs the command and looks for secrets in what it printed.
func callAMP(t *testing.T, ctx context.Context, args ...string) output {
	t.Helper()
	got := runCommand(ctx, append([]string{"call"}, args...)...)
	for _, secret := range []string{rightPassword, wrongPassword, privateQuery, "canary-body"} {
		if strings.Contains(got.stderr, secret) {
			t.Errorf("stderr shows %q:\n%s", secret, got.stderr)
		}
	}
	return got
}

func TestCallSendsItsBodyOnceAndWritesTheAnswer(t *testing.T) {
	path := fileWith(t, assetBody)
	for _, args := range [][]string{
		{"POST", "/assets/issue", "-d", "@" + path},
		{"-d", "@" + path, "POST", "/assets/issue"},
		{"POST", "-d=@" + path, "-type", "application/json; charset=utf-8", "--", "assets/issue"},
	} {
		fake, _ := configure(t)
		noGoroutineLeft(t)
		got := callAMP(t, t.Context(), args...)
		if got.code != exitOK || !strings.Contains(got.stdout, `"asset_uuid"`) || got.stderr != "" {
			t.Errorf("%q: %+v", args, got)
		}
		if v, effects := fake.Violations(), fake.Effects(); len(v) > 0 || len(effects) != 1 {
			t.Errorf("%q: violations %q, effects %v", args, v, effects)
		}
	}
}

func TestCallSendsWhatComesOnStdin(t *testing.T) {
	for _, name := range []string{"-", "@-"} {
		fake, _ := configure(t)
		executable, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// The first attempt meets a 429, so that the body is sent twice.
		fake.Inject(fakeamp.Fault{Route: "POST /assets/issue", Status: 429})
		cmd := exec.CommandContext(t.Context(), executable, "call", "POST", "/assets/issue", "-d", name)
		cmd.Env, cmd.Stdin = append(os.Environ(), childEnv+"=1"), strings.NewReader(assetBody)
		text, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(text), `"asset_uuid"`) {
			t.Errorf("%v: %s", err, text)
		}
		if v, effects := fake.Violations(), fake.Effects(); len(v) > 0 || len(effects) != 1 || fake.Count("POST /assets/issue") != 2 {
			t.Errorf("violations %q, effects %v", v, effects)
		}
	}
}

func TestMutationInDoubtExits5AndSaysWhatToRead(t *testing.T) {
	const asset = "0b2f8c4e-77aa-4f6f-9d5e-1f2d3c4b5a69"
	body := "@" + fileWith(t, assetBody)
	for name, test := range map[string]struct {
		args  []string
		fault fakeamp.Fault
		want  string
	}{
		"reset": {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{When: fakeamp.After, Do: fakeamp.Reset}, "read\n\n    GET /assets/\n"},
		"502":   {[]string{"POST", "/assets/issue?" + privateQuery, "-d", body}, fakeamp.Fault{When: fakeamp.After, Status: 502}, "read\n\n    GET /assets/\n"},
		"408":   {[]string{"POST", "/managers/create", "-d", body}, fakeamp.Fault{Status: 408}, "read\n\n    GET /managers\n"},
		"a GET": {[]string{"GET", "/assets/" + asset + "/distributions/create/"}, fakeamp.Fault{When: fakeamp.After, Do: fakeamp.Close},
			"read\n\n    GET /assets/" + asset + "/assignments\n"},
		"two parameters": {[]string{"DELETE", "/assets/" + asset + "/distributions/" + asset[1:] + "/cancel/"}, fakeamp.Fault{Status: 504},
			"read\n\n    GET /assets/" + asset + "/assignments\n"},
		"a parameter that is no id": {[]string{"POST", "/assets/a%20b/treasury-addresses/add", "-d", body}, fakeamp.Fault{Status: 500},
			"read\n\n    GET /assets/{assetUuid}/treasury-addresses\n"},
		"no read":       {[]string{"POST", "/assets/" + asset + "/burn-request", "-d", body}, fakeamp.Fault{Status: 500}, "no read is known"},
		"unknown route": {[]string{"PATCH", "/nothing", "-d", body}, fakeamp.Fault{Status: 500}, "no mutation that is known"},
		"body breaks off after 500": {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Status: 500, Do: fakeamp.CutBody},
			"read\n\n    GET /assets/\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			test.fault.Times = -1
			test.fault.Route = ""
			test.fault.Skip = 1 // the login
			fake.Inject(test.fault)
			got := callAMP(t, t.Context(), test.args...)
			if got.code != exitInDoubt || !strings.Contains(got.stderr, test.want) || !strings.Contains(got.stderr, "docs/exactly-once.md") {
				t.Errorf("%+v, want %q", got, test.want)
			}
			total := 0
			for _, n := range fake.Counts() {
				total += n
			}
			if total != 2 || len(fake.Violations()) > 0 {
				t.Errorf("%v, violations %q, want one login and one call", fake.Counts(), fake.Violations())
			}
		})
	}
}

func TestCallThatIsNotInDoubtDoesNotExit5(t *testing.T) {
	body := "@" + fileWith(t, assetBody)
	for name, test := range map[string]struct {
		args  []string
		fault fakeamp.Fault
		code  int
		want  string
	}{
		"400":                  {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Route: "POST /assets/issue", Status: 400}, exitError, "HTTP 400"},
		"403":                  {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Route: "POST /assets/issue", Status: 403}, exitNotAuthenticated, "HTTP 403"},
		"a redirect":           {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Route: "POST /assets/issue", Status: 307, Header: http.Header{"Location": {"/api/x"}}}, exitError, "HTTP 307"},
		"a read":               {[]string{"GET", "/assets"}, fakeamp.Fault{Route: "GET /assets", Status: 503}, exitError, "HTTP 503"},
		"a read is broken":     {[]string{"HEAD", "/assets"}, fakeamp.Fault{Route: "GET /assets", Do: fakeamp.Reset}, exitError, "request failed"},
		"can be repeated":      {[]string{"DELETE", "/assets/1/assignments/2/delete"}, fakeamp.Fault{Route: "DELETE /assets/{assetUuid}/assignments/{assignmentId}/delete", Status: 502}, exitError, "HTTP 502"},
		"the login is refused": {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Route: "POST /user/obtain_token", Status: 400}, exitNotAuthenticated, "refused"},
		"the login is broken":  {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Route: "POST /user/obtain_token", Do: fakeamp.Reset}, exitError, "was not sent"},
		"the answer is cut":    {[]string{"POST", "/assets/issue", "-d", body}, fakeamp.Fault{Route: "POST /assets/issue", Do: fakeamp.CutBody, When: fakeamp.After}, exitError, "do not send it again"},
	} {
		t.Run(name, func(t *testing.T) {
			fake, _ := configure(t)
			test.fault.Times = -1
			fake.Inject(test.fault)
			if got := callAMP(t, t.Context(), test.args...); got.code != test.code || !strings.Contains(got.stderr, test.want) || strings.Contains(got.stderr, "in doubt") {
				t.Errorf("%+v, want exit code %d and %q", got, test.code, test.want)
			}
		})
	}
}

func TestCallThatIsInterruptedIsInDoubt(t *testing.T) {
	fake, _ := configure(t)
	fake.Inject(fakeamp.Fault{Route: "POST /assets/issue", Do: fakeamp.StallHeaders, When: fakeamp.After})
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		awaitRequest(fake, "POST /assets/issue")
		interrupt()
	}()
	if got := callAMP(t, ctx, "POST", "/assets/issue", "-d", "@"+fileWith(t, assetBody)); got.code != exitInDoubt || !strings.Contains(got.stderr, "GET /assets/") {
		t.Errorf("%+v", got)
	}
}

// Whoever reads the answer leaves: the shell must not take that for a failure.
func TestMutationWhoseAnswerNobodyTakesIsToldToBePerformed(t *testing.T) {
	fake, _ := configure(t)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), executable, "call", "POST", "/assets/issue", "-d", "@"+fileWith(t, assetBody))
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"=1"), &stderr
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	mustDo(t, reader.Close())
	cmd.Stdout = writer
	_ = cmd.Run()
	_ = writer.Close()
	if code := cmd.ProcessState.ExitCode(); code != exitError || !strings.Contains(stderr.String(), "answered with HTTP 201: do not send it again") {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
	if n := len(fake.Effects()); n != 1 {
		t.Errorf("%d effects", n)
	}
}

func TestCallSendsNothingThatItCouldNotRead(t *testing.T) {
	dir := t.TempDir()
	large := fileWith(t, strings.Repeat("x", maxBody+1))
	for name, test := range map[string]struct{ from, want string }{
		"empty":     {"@" + fileWith(t, ""), "the file is empty: leave out -d"},
		"missing":   {"@" + filepath.Join(dir, "missing"), "no such file"},
		"directory": {"@" + dir, "is a directory"},
		"too large": {"@" + large, "more than 8 MiB"},
	} {
		fake, _ := configure(t)
		got := callAMP(t, t.Context(), "POST", "/assets/issue", "-d", test.from)
		if got.code != exitError || !strings.Contains(got.stderr, test.want) || !strings.Contains(got.stderr, "nothing was sent") || len(fake.Counts()) > 0 {
			t.Errorf("%s: %+v, requests %v", name, got, fake.Counts())
		}
	}
	mustDo(t, os.Truncate(large, maxBody))
	if body, size, err := readBody(t.Context(), large); err != nil || size != maxBody {
		t.Errorf("%d bytes, error %v", size, err)
	} else {
		body.Destroy()
	}
}

func TestStdinWithoutAnEndDoesNotHoldWhoLeaves(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	stdin := os.Stdin
	os.Stdin = reader
	defer func() { os.Stdin = stdin }()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	fake, _ := configure(t)
	if got := callAMP(t, ctx, "POST", "/assets/issue", "-d", "-"); got.code != exitError || !strings.Contains(got.stderr, "nothing was sent") || len(fake.Counts()) > 0 {
		t.Errorf("%+v, requests %v", got, fake.Counts())
	}
}

func TestBodyIsGoneOnceItIsDestroyed(t *testing.T) {
	body, _, err := readBody(t.Context(), fileWith(t, assetBody))
	if err != nil {
		t.Fatal(err)
	}
	r := &secretReader{secret: body}
	got, err := io.ReadAll(io.LimitReader(r, 10))
	if string(got) != assetBody[:10] || err != nil {
		t.Errorf("%q, error %v", got, err)
	}
	body.Destroy()
	if rest, err := io.ReadAll(r); len(rest) > 0 || err == nil {
		t.Errorf("%q, error %v", rest, err)
	}
}

func TestBuffersThatWereTooSmallAreWiped(t *testing.T) {
	var seen [][]byte
	content, err := readAll(readerFunc(func(p []byte) (int, error) {
		if len(seen) == 8 {
			return 0, io.EOF
		}
		p = p[:min(len(p), 60<<10)]
		seen = append(seen, p)
		return copy(p, bytes.Repeat([]byte("s"), len(p))), nil
	}), maxBody)
	if err != nil || len(bytes.Trim(content, "s")) > 0 {
		t.Fatal("it read something else: ", err)
	}
	clear(content)
	for i, part := range seen {
		if bytes.ContainsRune(part, 's') {
			t.Errorf("the buffer of read %d holds what was read", i)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCallIsMisusedAloud(t *testing.T) {
	fake, _ := configure(t)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no profile":         {[]string{"GET", "/assets", "-profile", ""}, "a profile has a name"},
		"nothing":            {nil, "needs a METHOD and a PATH"},
		"no path":            {[]string{"GET"}, "needs a METHOD and a PATH"},
		"too many":           {[]string{"GET", "/assets", privateQuery}, "needs a METHOD and a PATH"},
		"the body in argv":   {[]string{"POST", "/assets/issue", "-d", `{"password":"` + privateQuery + `"}`}, "never an argument"},
		"an empty body":      {[]string{"POST", "/assets/issue", "-d", ""}, "never an argument"},
		"another method":     {[]string{"CONNECT", "/assets"}, "METHOD must be one of"},
		"a small method":     {[]string{"post", "/assets"}, "METHOD must be one of"},
		"a hostile method":   {[]string{"GET /x HTTP/1.1\r\nX:", "/assets"}, "METHOD must be one of"},
		"another host":       {[]string{"POST", "https://elsewhere.example/" + privateQuery}, "PATH must be below"},
		"dots":               {[]string{"POST", "/assets/..;/admin"}, "PATH must not hold"},
		"a hostile type":     {[]string{"POST", "/assets/issue", "-type", "a/b\r\nX: " + privateQuery}, "-type is no media type"},
		"a login":            {[]string{"POST", "/user/obtain_token"}, "see ampauth token"},
		"a refresh":          {[]string{"GET", "/user/refresh-token/"}, "see ampauth token"},
		"the other refresh":  {[]string{"POST", "/user/refresh_token"}, "see ampauth token"},
		"a flag of a secret": {[]string{"GET", "/assets", "-password", privateQuery}, "-password"},
	} {
		if got := callAMP(t, t.Context(), test.args...); got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if len(fake.Counts()) > 0 {
		t.Errorf("requests %v", fake.Counts())
	}
}
