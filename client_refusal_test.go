package ampauth_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestRefusedTokenIsRenewedAndTheRequestSentOnceMore(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{"401": {}, "403": {Forbidden: true}} {
		t.Run(name, func(t *testing.T) {
			fake, server := startFake(t, cfg)
			client := newTestClient(t, configFor(server))
			get(t, client, server.URL+"/api/assets")
			fake.Revoke("issuer")
			resp, err := client.Do(issueRequest(t, server, "op-1"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				t.Errorf("status %d", resp.StatusCode)
			}
			effects := fake.Effects()
			if len(effects) != 1 || effects[0].ID != "op-1" {
				t.Errorf("effects %v, want one", effects)
			}
			if s := client.Stats(); s.Renewals != 1 || s.Replays != 1 || s.Obtains != 2 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestMutationIsReplayedOnceWithTheNewToken(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		client := w.client()
		w.token(client.Tokens)
		w.Revoke("issuer")
		if status := w.issue(client); status != 201 {
			t.Errorf("status %d", status)
		}
		sent := w.requests(ampIssue)
		if len(sent) != 2 || len(w.Effects()) != 1 || w.obtains() != 2 {
			t.Fatalf("%d requests, %d effects and %d logins, want 2, 1 and 2", len(sent), len(w.Effects()), w.obtains())
		}
		if sent[0].body != sent[1].body || sent[1].body == "" {
			t.Errorf("the bodies are %q and %q", sent[0].body, sent[1].body)
		}
		if sent[0].header.Get("Authorization") == sent[1].header.Get("Authorization") {
			t.Error("it was sent again with the token that was refused")
		}
	})
}

func TestSecondRefusalIsReturned(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		const route = "GET /assets"
		w.answer(route, func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(401)
			_, _ = fmt.Fprintf(rw, "refusal %d", len(w.requests(route)))
		})
		client := w.client()
		w.token(client.Tokens)
		status, body := get(t, client, w.url+"/api/assets")
		if status != 401 || body != "refusal 2" || len(w.requests(route)) != 2 || w.obtains() != 2 {
			t.Errorf("%d %q after %d requests and %d logins, want the second 401 after 2 and one more", status, body, len(w.requests(route)), w.obtains())
		}
	})
}

func TestRefusalIsReturnedWholeWhenItsBodyCannotBeSentAgain(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	get(t, client, server.URL+"/api/assets")
	fake.Revoke("issuer")
	req := issueRequest(t, server, "op-1")
	req.GetBody, req.ContentLength = nil, -1
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body := stubText(t, resp)
	if resp.StatusCode != 401 || !strings.Contains(body, "Invalid token.") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if n := len(fake.Effects()); n != 0 {
		t.Errorf("%d effects, want none", n)
	}
	if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
		t.Errorf("the next request has no new token: %d", status)
	}
}

// A refusal may arrive when the token has long been replaced.
func TestStragglersOfARefusedTokenMakeNoLogin(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		const crowd = 50
		client := w.client()
		w.token(client.Tokens)
		old := "token " + w.Token("issuer")
		w.Revoke("issuer")
		var mu sync.Mutex
		came := 0
		all := make(chan struct{})
		w.answer("GET /assets", func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != old {
				return
			}
			mu.Lock()
			came++
			n := came
			mu.Unlock()
			if n == crowd {
				close(all)
			}
			<-all // everybody is under way with the old token
			if n%5 == 0 {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
			}
			rw.WriteHeader(401)
		})
		var wg sync.WaitGroup
		for range crowd {
			wg.Go(func() {
				if status, _ := get(t, client, w.url+"/api/assets"); status != 200 {
					t.Errorf("status %d", status)
				}
			})
		}
		wg.Wait()
		if came != crowd || w.obtains() != 2 {
			t.Errorf("%d requests had the old token and %d logins were made, want %d and the first and one more", came, w.obtains(), crowd)
		}
	})
}

func TestFiftyRefusedRequestsMakeOneLogin(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	get(t, client, server.URL+"/api/assets")
	fake.Revoke("issuer")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
				t.Errorf("status %d", status)
			}
		})
	}
	wg.Wait()
	if n := fake.Count("POST /user/obtain_token"); n != 2 {
		t.Errorf("%d logins, want the first and one more", n)
	}
}

func TestServerThatAlwaysRefusesCostsFewLogins(t *testing.T) {
	for name, cfg := range map[string]fakeamp.Config{"same token": {}, "new token each login": {NewTokenEachLogin: true}} {
		t.Run(name, func(t *testing.T) {
			fake, server := startFake(t, cfg)
			client := newTestClient(t, configFor(server))
			fake.Inject(fakeamp.Fault{Route: "GET /assets", Status: 401, Times: -1})
			for range 100 {
				status, body := get(t, client, server.URL+"/api/assets")
				if status != 401 || !strings.Contains(body, "Invalid token.") {
					t.Fatalf("%d %s, want the refusal with its body", status, body)
				}
			}
			if n := fake.Count("POST /user/obtain_token"); n > 3 {
				t.Errorf("%d logins for 100 refusals, want at most 3", n)
			}
			if n := fake.Count("GET /assets"); n > 103 {
				t.Errorf("%d requests for 100 calls", n)
			}
		})
	}
}

func TestOneEndpointThatAlwaysRefusesCostsFewLogins(t *testing.T) {
	fake, server := startFake(t, fakeamp.Config{})
	client := newTestClient(t, configFor(server))
	fake.Inject(fakeamp.Fault{Route: "GET /managers", Status: 401, Times: -1})
	for range 50 { // what the API accepts elsewhere does not excuse the next login
		if status, _ := get(t, client, server.URL+"/api/assets"); status != 200 {
			t.Fatalf("status %d", status)
		}
		if status, _ := get(t, client, server.URL+"/api/managers"); status != 401 {
			t.Fatalf("status %d, want the refusal", status)
		}
	}
	if n := fake.Count("POST /user/obtain_token"); n > 3 {
		t.Errorf("%d logins for 50 refusals, want at most 3", n)
	}
}
