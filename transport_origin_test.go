package ampauth_test

import (
	"context"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/ampauth/ampauth"
)

// Whatever name is dialed, this network ends at one server, which notes who was
// meant and what token came along.
func TestTokenDoesNotGoToAHostThatOnlyLowersToItsOwn(t *testing.T) {
	var mu sync.Mutex // guards seen
	seen := make(map[string]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Host] = r.Header.Get("Authorization")
		mu.Unlock()
		if r.Host == "api.test" {
			http.Redirect(w, r, "http://ap\u0130.test/stolen", http.StatusFound)
		}
	}))
	defer server.Close()
	network := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}}
	defer network.CloseIdleConnections()
	client := &http.Client{Transport: &ampauth.AuthTransport{
		Base: network, Source: ampauth.StaticTokenSource(ampauth.SecretFromString("c4a7e1f09b3d586270aef1c2d8b4963517fe0ad2")), Origin: "http://api.test", AllowHTTP: true,
	}}
	resp, err := client.Get("http://api.test/assets")
	if err == nil {
		_ = resp.Body.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if seen["api.test"] == "" {
		t.Error("the origin did not get the token")
	}
	for _, host := range slices.Sorted(maps.Keys(seen)) {
		if host != "api.test" && seen[host] != "" {
			t.Errorf("%s got the token", host)
		}
	}
}
