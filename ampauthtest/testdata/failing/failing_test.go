// Package failing is what a user's tests look like that fail. It is run as a child by
// TestFailingTestsReadWell.
package failing

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// issue is a careless program: it sends again what may have been performed.
func issue(client *ampauth.Client, base string) {
	for range 2 {
		resp, err := client.Post(base+"/assets/issue", "application/json", strings.NewReader(`{"name":"SECRETBOND"}`))
		if err == nil {
			resp.Body.Close()
			return
		}
	}
}

func TestTwice(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true})
	issue(amp.Client(), amp.URL)
}

func TestBodyOnAGet(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	req, err := http.NewRequest("GET", amp.URL+"/assets", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := amp.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestWrongFault(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "POST /asset/issue", Reset: true}) // line 46
	t.Log("the test goes on")
}

func TestInParallel(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			client := amp.Client()
			done := make(chan struct{})
			go func() {
				defer close(done)
				if name == "b" {
					amp.Inject(ampauthtest.Fault{Times: -2, Reset: true})
				}
				issue(client, amp.URL)
			}()
			<-done
		})
	}
}
