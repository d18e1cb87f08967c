package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestTokenIsAloneOnStdout(t *testing.T) {
	fake, _ := configureStore(t)
	noGoroutineLeft(t)
	if got := runCommand(t.Context(), "token"); got.code != exitOK || got.stdout != fake.Token("issuer")+"\n" || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	got := runCommand(t.Context(), "token", "-json")
	var object map[string]string
	if err := json.Unmarshal([]byte(got.stdout), &object); err != nil || strings.Count(got.stdout, "\n") != 1 {
		t.Fatal(err, got)
	}
	ends, err := time.Parse(time.RFC3339, object["expires_at"])
	if err != nil || time.Until(ends) < 23*time.Hour || time.Until(ends) > 24*time.Hour {
		t.Errorf("it ends at %q", object["expires_at"])
	}
	if object["token"] != fake.Token("issuer") || object["scheme"] != "token" || len(object) != 3 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if n := fake.Count("POST /user/obtain_token"); n != 1 {
		t.Errorf("%d logins with a store, want 1", n)
	}
}

func TestHeaderIsALineThatTheAPITakes(t *testing.T) {
	configure(t)
	got := process(t, "header")
	name, value, found := strings.Cut(strings.TrimSuffix(got.stdout, "\n"), ": ")
	if got.code != exitOK || !found || name != "Authorization" || strings.Contains(value, "\n") || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, os.Getenv("AMP_API_BASE_URL")+"/managers/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(name, value)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("HTTP %d", resp.StatusCode)
	}
}

// What is printed has to be good for the one who gets it, and cannot be replaced there.
func TestTokenThatEndsSoonIsReplacedBeforeItIsPrinted(t *testing.T) {
	for _, name := range []string{"token", "header"} {
		fake, dir := configureStore(t)
		if got := runCommand(t.Context(), name); got.code != exitOK {
			t.Fatalf("%+v", got)
		}
		first := fake.Token("issuer")
		store := &ampauth.FileStore{Dir: dir}
		key, err := ampauth.NewStoreKey(os.Getenv("AMP_API_BASE_URL"), "issuer")
		if err != nil {
			t.Fatal(err)
		}
		err = store.Save(t.Context(), key, ampauth.Token{Value: ampauth.SecretFromString(first),
			ObtainedAt: time.Now().Add(-23 * time.Hour), ExpiresAt: time.Now().Add(4 * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		got := runCommand(t.Context(), name)
		now := fake.Token("issuer")
		if got.code != exitOK || !strings.HasSuffix(got.stdout, now+"\n") || now == first || fake.Count("GET /user/refresh-token") != 1 {
			t.Errorf("%s: it printed %q; the token was %s, and is %s", name, got.stdout, first, now)
		}
	}
}

func TestTokenThatCannotBeHadIsNotPrinted(t *testing.T) {
	for _, name := range []string{"token", "header"} {
		fake, _ := configure(t)
		t.Setenv("AMP_PASSWORD", wrongPassword)
		got := process(t, name)
		if got.code != exitNotAuthenticated || got.stdout != "" || strings.Contains(got.stderr, wrongPassword) {
			t.Errorf("%+v", got)
		}
		t.Setenv("AMP_PASSWORD", rightPassword)
		fake.Inject(fakeamp.Fault{Route: "POST /user/obtain_token", Status: 500, Times: -1})
		if got := process(t, name); got.code != exitError || got.stdout != "" {
			t.Errorf("%+v", got)
		}
		if got := process(t, name, "x"); got.code != exitUsage || got.stdout != "" {
			t.Errorf("%+v", got)
		}
	}
}

func TestTokenReportsAStdoutThatIsGone(t *testing.T) {
	for _, name := range []string{"token", "header"} {
		fake, _ := configure(t)
		var stderr strings.Builder
		if code := run(t.Context(), []string{name}, brokenPipe{}, &stderr); code != exitError || stderr.String() != "ampauth: broken pipe\n" {
			t.Errorf("%s: exit code %d, stderr %q", name, code, stderr.String())
		}
		if strings.Contains(stderr.String(), fake.Token("issuer")) {
			t.Error("stderr shows the token")
		}
	}
}
