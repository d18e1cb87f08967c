package ampauthtest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// issueOnce is a program that takes what is on its way for lost after settle.
func issueOnce(ctx context.Context, client *ampauth.Client, baseURL string, settle time.Duration) error {
	_, err := ampauth.Once(ctx, ampauth.RetryConfigForTests(), ampauth.Mutation[bool]{
		Send: func(ctx context.Context) (bool, error) { return true, Issue(ctx, client, baseURL, "Bond") },
		Find: func(ctx context.Context) (bool, bool, error) {
			req, err := http.NewRequestWithContext(ctx, "GET", baseURL+"/assets", nil)
			if err != nil {
				return false, false, err
			}
			resp, err := client.Do(req)
			if err != nil {
				return false, false, err
			}
			defer resp.Body.Close()
			var assets []struct{ Name string }
			err = json.NewDecoder(resp.Body).Decode(&assets)
			return len(assets) > 0, len(assets) > 0, err
		},
		Settle: settle,
	})
	return err
}

// What is performed late is found by a program that waits for it, and performed twice by
// one that does not, even if the test is over before.
func TestLateIsForThoseWhoWaitTooShort(t *testing.T) {
	for name, test := range map[string]struct {
		fault  ampauthtest.Fault
		settle time.Duration
		want   string
	}{
		"broken, waits":    {ampauthtest.Fault{Reset: true}, time.Minute, ""},
		"502, waits":       {ampauthtest.Fault{Status: 502}, time.Minute, ""},
		"broken, does not": {ampauthtest.Fault{Reset: true}, 10 * time.Second, `POST /assets/issue was performed twice: the same request again`},
		"502, does not":    {ampauthtest.Fault{Status: 502}, 10 * time.Second, `, and had met the fault "Status 502, Late 30s, on POST /assets/issue".`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, amp := record(t, ampauthtest.Options{})
				test.fault.Route, test.fault.Late = issue, 30*time.Second
				amp.Inject(test.fault)
				start := time.Now()
				if err := issueOnce(t.Context(), amp.Client(), amp.URL, test.settle); err != nil {
					t.Error(err)
				}
				effects := amp.Effects()
				if len(effects) != 1 {
					t.Errorf("effects %+v, want one so far", effects)
				}
				if test.want != "" {
					one(t, r.end(), "ampauthtest: ", test.want)
				} else if errors := r.end(); len(errors) > 0 || effects[0].Time.Sub(start) != 30*time.Second {
					t.Errorf("errors %q, effects %+v; want none, and one effect after 30s", errors, effects)
				}
				if n := len(amp.Effects()); n != 1+strings.Count(name, "does not") {
					t.Errorf("%d effects at the end", n)
				}
			})
		})
	}
}
