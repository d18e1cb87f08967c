package ampauth_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
)

func TestLogNamesTheServerAndThePathAsTheyAreSent(t *testing.T) {
	for url, want := range map[string]map[string]any{
		"https://[2001:db8::1]/api/assets":      {"server.address": "2001:db8::1", "server.port": nil, "url.path": "/api/assets", "error.type": "request_failed"},
		"https://[2001:db8::1]:8443/api/assets": {"server.address": "2001:db8::1", "server.port": 8443.0},
		"https://amp.example/assets/a%2Fb?q=1":  {"server.address": "amp.example", "server.port": nil, "url.path": "/assets/a%2Fb"},
	} {
		var log ampLog
		var cfg ampauth.Config
		log.into(&cfg)
		transport := &ampauth.RetryTransport{Logger: cfg.Logger, Base: stubScript(stubFail(errors.New("broken"))), Retry: ampauth.RetryConfig{MaxAttempts: 1}}
		_, err := transport.RoundTrip(requestOf(t, "GET", url))
		stubError(t, err)
		line, _, _ := strings.Cut(log.String(), "\n")
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for name, value := range want {
			if record[name] != value {
				t.Errorf("%s: %s is %v, want %v", url, name, record[name], value)
			}
		}
	}
}

func TestErrorTypeOfATimeoutBelowIsLogged(t *testing.T) {
	var log ampLog
	var cfg ampauth.Config
	log.into(&cfg)
	transport := &ampauth.RetryTransport{Logger: cfg.Logger, Base: stubScript(stubFail(theirTimeout{})), Retry: ampauth.RetryConfig{MaxAttempts: 1}}
	_, err := transport.RoundTrip(requestOf(t, "GET", "https://amp.example/assets"))
	stubError(t, err)
	if !strings.Contains(log.String(), `"error.type":"timeout"`) {
		t.Errorf("got %s", log.String())
	}
}
