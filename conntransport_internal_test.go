package ampauth

import (
	"net/http"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/viaproxy"
)

// The transport that this package makes finds a silent connection of HTTP/2 out before
// half of an attempt's time is over.
func TestOwnTransportPingsSilentConnections(t *testing.T) {
	for timeout, limit := range map[time.Duration]time.Duration{
		0: 5 * time.Second, 20 * time.Second: 10 * time.Second, -1: 5 * time.Second,
	} {
		base, end := lowerLayers(Config{Retry: RetryConfig{Timeout: timeout}})
		defer end()
		h2 := base.(*ConnTransport).Base.HTTP2
		if h2.SendPingTimeout <= 0 || h2.PingTimeout <= 0 || h2.SendPingTimeout+h2.PingTimeout >= limit {
			t.Errorf("Timeout %v: a ping after %v, answered within %v; want less than %v together", timeout, h2.SendPingTimeout, h2.PingTimeout, limit)
		}
	}
}

// The transport that this package makes knows a proxy's refusal by its status.
func TestOwnTransportKnowsAProxysRefusal(t *testing.T) {
	base, end := lowerLayers(Config{})
	defer end()
	err := base.(*ConnTransport).Base.OnProxyConnectResponse(t.Context(), nil, nil, &http.Response{StatusCode: 407})
	if refusal, ok := err.(*viaproxy.Refusal); !ok || refusal.StatusCode != 407 || !final(err) {
		t.Errorf("a 407 of a proxy is %v", err)
	}
}

func TestUsersTransportHasOneConnTransportOverIt(t *testing.T) {
	users := new(http.Transport)
	client, err := NewClient(Config{
		BaseURL: "https://amp.test/api", Credentials: Credentials{Username: "u", Password: SecretFromString("p")},
		HTTPClient: &http.Client{Transport: users}, MutationIdle: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	retry := client.retry.retry()
	requests := retry.base().(*AuthTransport).base().(*ConnTransport)
	logins := client.Tokens.wire.retry().base().(*ConnTransport)
	if requests != logins || requests.made.Load().own.Base != users || requests.MutationIdle != time.Minute {
		t.Errorf("requests go over %p and logins over %p, Base is the user's: %v, MutationIdle is %v", requests, logins, requests.made.Load().own.Base == users, requests.MutationIdle)
	}
}
