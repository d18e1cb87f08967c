package ampauth

import (
	"net/http"
	"testing"
	"time"
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
