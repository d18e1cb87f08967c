package ampauthtest_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ampauth/ampauth/ampauthtest"
)

// A bubble that waits for a socket stands still for ever, and says nothing.
func TestServerOfOutsideIsNotReachedFromABubble(t *testing.T) {
	for _, options := range []ampauthtest.Options{{}, {TLS: true}} {
		r, amp := record(t, options)
		synctest.Test(t, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", amp.URL+"/assets", nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := amp.Transport().RoundTrip(req); err == nil {
				resp.Body.Close()
				t.Error("an answer")
			} else if !strings.Contains(err.Error(), "call NewServer in the bubble, with its t") {
				t.Error(err)
			}
		})
		one(t, r.end(), "ampauthtest: the Server was made outside of this testing/synctest bubble: call NewServer in the bubble, with its t")
	}
}

func TestClientOfABubbleNeedsAServerOfTheBubble(t *testing.T) {
	r, amp := record(t, ampauthtest.Options{})
	synctest.Test(t, func(t *testing.T) { amp.Client() })
	one(t, r.end(), "ampauthtest: Client: the Server was made outside of this testing/synctest bubble: call NewServer in the bubble, with its t")
}

// With the t of outside, the cleanup comes after the bubble.
func TestServerOfABubbleNeedsTheTOfTheBubble(t *testing.T) {
	r := new(recorder)
	synctest.Test(t, func(t *testing.T) {
		ampauthtest.NewServer(r, ampauthtest.Options{})
		cleanups := slices.Clone(r.cleanups)
		r.end() // so that the bubble can end, which it cannot otherwise
		r.cleanups = cleanups
	})
	one(t, r.end(), "ampauthtest: NewServer was called in a testing/synctest bubble with a t of outside: give it the t of the bubble")
}
