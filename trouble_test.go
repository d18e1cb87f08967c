package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

// status makes a GET below the base, whose answer is read, and returns its status; 0 for an
// error.
func (w *ampWorld) status(client *http.Client, path string) int {
	w.t.Helper()
	resp, err := client.Get(w.url + "/api" + path)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (w *ampWorld) wantStatus(client *http.Client, path string, want int) {
	w.t.Helper()
	if got := w.status(client, path); got != want {
		w.t.Errorf("%s was answered %d, want %d", path, got, want)
	}
}

// mostInAnHour is how many of the requests for a route came within one hour.
func (w *ampWorld) mostInAnHour(route string) (most int) {
	seen := w.requests(route)
	for i := range seen {
		n := 0
		for _, later := range seen[i:] {
			if later.at.Sub(seen[i].at) < time.Hour {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestResourceThatRefusesWhateverTokenCostsFiveLoginsAnHour(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: "GET /managers", Status: 401, Times: -1})
		client := w.client(func(c *ampauth.Config) { c.Lifetime = -1 })
		for pair := range 24 * 60 {
			w.wantStatus(client.Client, "/assets", 200)
			w.wantStatus(client.Client, "/managers", 401)
			if pair == 50 && w.obtains() > 6 {
				t.Errorf("%d logins for 50 pairs of calls", w.obtains())
			}
			time.Sleep(time.Minute)
		}
		if most := w.mostInAnHour(ampObtain); most > 6 { // the first login is for other reasons
			t.Errorf("%d logins in an hour", most)
		}
		for range 5 {
			before := w.obtains()
			w.Revoke("issuer")
			w.wantStatus(client.Client, "/assets", 200)
			if n := w.obtains() - before; n != 1 {
				t.Errorf("a revocation meanwhile took %d logins, want 1", n)
			}
			w.wantStatus(client.Client, "/managers", 401)
			time.Sleep(time.Second)
		}
	})
}

// More resources than are remembered cost no more, all of them together.
func TestManyResourcesThatRefuseCostFiveLoginsAnHourTogether(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		client := w.client(func(c *ampauth.Config) { c.Lifetime = -1 })
		w.wantStatus(client.Client, "/assets", 200)
		for i := range 2000 {
			route := fmt.Sprintf("GET /refusing/%d", i%200)
			w.answerText(route, 401, `{"detail":"Invalid token."}`)
			w.wantStatus(client.Client, route[len("GET "):], 401)
			w.wantStatus(client.Client, "/assets", 200)
			time.Sleep(5 * time.Second)
		}
		if most := w.mostInAnHour(ampObtain); most > 6 {
			t.Errorf("%d logins in an hour", most)
		}
		before := w.obtains()
		w.Revoke("issuer")
		w.wantStatus(client.Client, "/assets", 200)
		if n := w.obtains() - before; n != 1 {
			t.Errorf("a revocation meanwhile took %d logins, want 1", n)
		}
	})
}

// Somebody else rotates the token of the account right after our login, several times.
func TestRotationRightAfterALoginIsHealedByTheNextRequest(t *testing.T) {
	for _, refuser := range []string{"", ", beside a resource that refuses"} {
		for _, rotations := range []int{1, 2, 3} {
			t.Run(fmt.Sprint(rotations, refuser), func(t *testing.T) {
				ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
					client := w.client()
					w.wantStatus(client.Client, "/assets", 200)
					for range 50 {
						if refuser != "" {
							w.answerText("GET /managers", 401, `{"detail":"Invalid token."}`)
							w.wantStatus(client.Client, "/managers", 401)
						}
						w.wantStatus(client.Client, "/assets", 200)
						time.Sleep(time.Minute)
					}
					left := rotations
					w.answer(ampObtain, func(rw http.ResponseWriter, r *http.Request) {
						w.ServeHTTP(rw, r)
						if left--; left >= 0 {
							w.Rotate("issuer")
						}
					})
					w.Rotate("issuer")
					failed := 0
					for w.status(client.Client, "/assets") != 200 {
						if failed++; failed > rotations {
							t.Fatalf("%d requests failed after %d rotations", failed, rotations)
						}
					}
					for range 10 {
						w.wantStatus(client.Client, "/assets", 200)
					}
				})
			})
		}
	}
}

// A resource that refuses does not keep others from a refresh ahead of time, or the token
// from those who share the store.
func TestResourceThatRefusesLeavesTheStoreAndTheRefreshAlone(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		client := w.client(storedIn(store), func(c *ampauth.Config) { c.Lifetime = 15 * time.Minute })
		w.wantStatus(client.Client, "/assets", 200)
		w.answerText("GET /managers", 401, `{"detail":"Invalid token."}`)
		key, err := ampauth.NewStoreKey(w.url+"/api", "issuer")
		if err != nil {
			t.Fatal(err)
		}
		for range 30 * 60 {
			took := ampElapsed(func() { w.wantStatus(client.Client, "/assets", 200) })
			if took != 0 {
				t.Fatalf("a call waited %v", took)
			}
			w.wantStatus(client.Client, "/managers", 401)
			time.Sleep(time.Second)
			if _, err := store.Load(t.Context(), key); err != nil {
				t.Fatalf("the stored token: %v", err)
			}
		}
		if w.refreshes() < 2 {
			t.Errorf("%d refreshes in half an hour, want one each 10 min", w.refreshes())
		}
	})
}

// What AMP says of an object that is not there, it says to a token that it has taken.
func TestTokenThatWasOnlyGoodForNotFoundCountsAsAccepted(t *testing.T) {
	ampBubble(t, fakeamp.Config{NewTokenEachLogin: true}, func(t *testing.T, w *ampWorld) {
		const missing = "/assets/5c4a1c52-6a5d-4d5e-9b5c-000000000000"
		client := w.client(func(c *ampauth.Config) { c.Lifetime = -1 })
		for range 20 {
			before := w.obtains()
			w.wantStatus(client.Client, missing, 404)
			w.Revoke("issuer")
			w.wantStatus(client.Client, missing, 404)
			if n := w.obtains() - before; n > 2 {
				t.Fatalf("a revocation took %d logins", n)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestOutageOfTheLoginIsNotMultiplied(t *testing.T) {
	for name, every := range map[string]time.Duration{"one after the other": 0, "one a second": time.Second, "one in a quarter of an hour": 15 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Times: -1})
				client := w.client()
				began := time.Now()
				calls, afterAMinute, before := 0, 0, 0
				for range 500 {
					if time.Since(began) >= time.Minute {
						if afterAMinute == 0 {
							before = w.obtains()
						}
						afterAMinute++
					}
					calls++
					w.wantStatus(client.Client, "/assets", 0)
					time.Sleep(every)
				}
				if n := w.obtains(); float64(n) > 1.2*float64(calls) {
					t.Errorf("%d logins for %d calls", n, calls)
				}
				if n := w.obtains() - before; every <= time.Second && afterAMinute > 0 && float64(n) > 0.24*float64(afterAMinute) {
					t.Errorf("after a minute %d logins for %d calls", n, afterAMinute)
				}
				w.ClearFaults()
				time.Sleep(30 * time.Second) // the longest pause
				w.wantStatus(client.Client, "/assets", 200)
			})
		})
	}
}

// A resource that begins to refuse while no login can be made takes the token from nobody.
func TestResourceThatRefusesInAnOutageLeavesTheOthersAlone(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		client := w.client()
		w.wantStatus(client.Client, "/assets", 200)
		w.wantStatus(client.Client, "/managers", 200)
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Times: -1})
		w.answerText("GET /managers", 401, `{"detail":"Invalid token."}`)
		for range 60 {
			w.status(client.Client, "/managers")
			w.wantStatus(client.Client, "/assets", 200)
			time.Sleep(time.Minute)
		}
	})
}

// A short outage costs no longer pause than half of it.
func TestPauseIsHalfOfTheOutage(t *testing.T) {
	for _, outage := range []time.Duration{4 * time.Second, 10 * time.Second, 40 * time.Second, time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Times: -1})
				client := w.client()
				began := time.Now()
				for time.Since(began) < outage {
					w.status(client.Client, "/assets")
					time.Sleep(100 * time.Millisecond)
				}
				w.ClearFaults()
				healed := time.Now()
				for w.status(client.Client, "/assets") != 200 {
					time.Sleep(100 * time.Millisecond)
				}
				if took, limit := time.Since(healed), min(outage/2, 30*time.Second)+time.Second; took > limit {
					t.Errorf("after %v of outage it took %v, want at most %v", outage, took, limit)
				}
			})
		})
	}
}

// Who reads the error of an outage is not sent to look for a fault of the configuration.
func TestErrorOfAnOutageDoesNotBlameTheConfiguration(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		for _, status := range []int{500, 502, 503, 599} {
			w.Inject(fakeamp.Fault{Route: ampObtain, Status: status, Times: 3})
			_, err := w.manager().Token(t.Context())
			if e := stubError(t, err, ampauth.ErrObtainFailed); e.StatusCode != status || strings.Contains(err.Error(), "BaseURL") {
				t.Errorf("%d: %v", status, err)
			}
			w.ClearFaults()
		}
	})
}

func TestOneAnswerDoesNotStopLoginsForAnHour(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.Inject(fakeamp.Fault{Route: ampObtain, Status: 503, Header: http.Header{"Retry-After": {"3600"}}})
		m := w.manager()
		_, err := m.Token(t.Context())
		stubError(t, err, ampauth.ErrObtainFailed)
		time.Sleep(time.Minute)
		w.token(m)
	})
}

// AMP says in JSON that there is no refresh. What says so in HTML is something on the way.
func TestMissingRefreshInHTMLIsNotRemembered(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		w.answerText(ampRefresh, 404, "<h1>Not Found</h1>", "Content-Type", "text/html")
		const life = 20 * time.Minute
		m := w.manager(func(c *ampauth.Config) { c.Lifetime = life })
		w.token(m)
		for i := range 3 {
			time.Sleep(life - time.Minute)
			w.token(m)
			time.Sleep(time.Second)
			w.wantSent(2+i, 1+i)
		}
	})
}

func TestRefusedPasswordIsToldInAnyJSON(t *testing.T) {
	for _, mediaType := range []string{"application/json", "application/problem+json", "application/vnd.amp.v1+json; charset=utf-8"} {
		t.Run(mediaType, func(t *testing.T) {
			ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
				w.answerText(ampObtain, 400, `{"title":"Unable to log in"}`, "Content-Type", mediaType)
				client := w.client()
				for range 5 {
					_, err := client.Get(w.url + "/api/assets")
					if !errors.Is(err, ampauth.ErrCredentialsRefused) {
						t.Errorf("the error is %v", err)
					}
				}
				w.wantSent(1, 0)
			})
		})
	}
}

// A token that is taken from the store anew is the one that was accepted before.
func TestAcceptedTokenIsKnownAgainWhenItComesFromTheStore(t *testing.T) {
	ampBubble(t, fakeamp.Config{}, func(t *testing.T, w *ampWorld) {
		store := newMemoryStore()
		client := w.client(func(c *ampauth.Config) { c.Store = store })
		w.wantStatus(client.Client, "/assets", 200)
		token := w.token(client.Tokens)
		for range 5 { // somebody else refreshes, and stores what comes of it
			before := w.obtains()
			fresh := ampauth.Token{Value: ampauth.SecretFromString(w.Rotate("issuer")), ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(24 * time.Hour)}
			key, err := ampauth.NewStoreKey(w.url+"/api", "issuer")
			if err != nil {
				t.Fatal(err)
			}
			if err := store.Save(context.Background(), key, fresh); err != nil {
				t.Fatal(err)
			}
			w.wantStatus(client.Client, "/assets", 200)
			if n := w.obtains() - before; n != 0 {
				t.Errorf("%d logins, want the stored token", n)
			}
			time.Sleep(time.Second)
		}
		_ = token
	})
}
