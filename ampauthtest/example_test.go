package ampauthtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// Issue stands for the program of a user: it issues an asset.
func Issue(ctx context.Context, client *ampauth.Client, baseURL, name string) error {
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", baseURL+"/assets/issue", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return errors.New("not issued: " + resp.Status)
	}
	return nil
}

// The test of the package documentation.
func TestIssueWhenTheAnswerIsLost(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true})
	err := Issue(t.Context(), amp.Client(), amp.URL, "Bond")
	if !errors.Is(err, ampauth.ErrAmbiguous) {
		t.Errorf("%v, want one that Is ErrAmbiguous", err)
	}
	if n := len(amp.Effects()); n != 1 {
		t.Errorf("issued %d times, want once", n)
	}
}

// All that a test of an issuing program needs; its lines are counted by
// TestUsersTestIsShort.
func TestIssue(t *testing.T) {
	for name, test := range map[string]struct {
		fault  ampauthtest.Fault
		revoke bool
		want   error
		logins int
	}{
		"nothing goes wrong": {logins: 1},
		"performed, the answer is lost": {
			fault: ampauthtest.Fault{Route: "POST /assets/issue", AfterIt: true, Reset: true}, want: ampauth.ErrAmbiguous, logins: 1,
		},
		"token revoked": {revoke: true, logins: 2},
		"rate limit":    {fault: ampauthtest.Fault{Route: "POST /assets/issue", Status: 429, RetryAfter: "0"}, logins: 1},
		"slow login":    {fault: ampauthtest.Fault{Route: "POST /user/obtain_token", Delay: 50 * time.Millisecond}, logins: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			amp.Inject(test.fault)
			client := amp.Client()
			if test.revoke {
				if _, err := client.Tokens.Token(t.Context()); err != nil {
					t.Fatal(err)
				}
				amp.Revoke()
			}
			if err := Issue(t.Context(), client, amp.URL, "Bond"); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if got := amp.Effects(); len(got) != 1 || got[0].Route != "POST /assets/issue" {
				t.Errorf("performed: %v, want one issuance", got)
			}
			if n := amp.Count("POST /user/obtain_token"); n != test.logins {
				t.Errorf("%d logins, want %d", n, test.logins)
			}
		})
	}
}
