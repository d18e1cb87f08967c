package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

// What was not found may be there all the same if a call of that Find ended otherwise than in
// an answer that shows it, whatever Find makes of that.
func TestOnceTakesNoFailedReadForNotThere(t *testing.T) {
	broken := func(req *http.Request) (*http.Response, error) {
		resp, err := stubAnswer(200)(req)
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("[{"), iotest.ErrReader(io.ErrUnexpectedEOF)))
		return resp, err
	}
	redirected := func(ctx context.Context, _ int) error {
		client := &http.Client{CheckRedirect: ampauth.CheckRedirect, Transport: oneAttempt(stubAnswer(302, "Location", "/api/categories"), stubAnswer(200))}
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://api.test/api/assets", nil)
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	type find = func(context.Context, int) error
	tests := map[string]struct {
		find  find
		shows bool
	}{
		"no call that is seen":            {func(context.Context, int) error { return nil }, true},
		"the second attempt succeeds":     {calling(&ampauth.RetryTransport{Base: stubScript(stubAnswer(503), stubBreak(errStubReset), stubAnswer(200))}, safe), true},
		"many pages":                      {calling(oneAttempt(stubAnswer(200)), safe, safe, safe), true},
		"a list, and none of that name":   {calling(oneAttempt(stubAnswer(200), stubAnswer(404)), safe, safe), true},
		"a redirect that is followed":     {redirected, true},
		"a search by POST":                {calling(oneAttempt(stubAnswer(200)), mutating), true},
		"a redirect that is not followed": {calling(oneAttempt(stubAnswer(302, "Location", "/login")), safe), false},
		"broken":                          {calling(oneAttempt(stubBreak(errStubReset)), safe), false},
		"not sent":                        {calling(oneAttempt(stubRefuse()), safe), false},
		"no token":                        {calling(&ampauth.RetryTransport{Base: &ampauth.AuthTransport{Base: stubScript(stubAnswer(200)), Source: stubNoToken(io.EOF), Origin: "https://api.test"}}, safe), false},
		"an answer that breaks off":       {calling(oneAttempt(broken), safe), false},
		"the last page fails": {func(ctx context.Context, n int) error {
			return calling(oneAttempt(stubAnswer(200), stubAnswer(503)), safe, safe)(ctx, n)
		}, false},
		"the first page fails": {func(ctx context.Context, n int) error {
			return calling(oneAttempt(stubAnswer(503), stubAnswer(200)), safe, safe)(ctx, n)
		}, false},
		"a search by POST that fails": {calling(oneAttempt(stubAnswer(500)), mutating), false},
		"a call that goes on": {func(ctx context.Context, _ int) error {
			go call(ctx, oneAttempt(stubStall()), safe)
			synctest.Wait()
			return nil
		}, false},
		"a call that panics": {func(ctx context.Context, _ int) error {
			defer func() { _ = recover() }()
			call(ctx, oneAttempt(func(*http.Request) (*http.Response, error) { panic("below") }), safe)
			return nil
		}, false},
	}
	for status := 200; status < 600; status++ {
		tests[fmt.Sprint(status)] = struct {
			find  find
			shows bool
		}{calling(oneAttempt(stubAnswer(status)), safe), status < 300 || status == 304 || status == 404 || status == 410}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sends, reads := 0, 0
				_, err := ampauth.Once(t.Context(), onceWaits, ampauth.Mutation[int]{
					Send: func(context.Context) (int, error) {
						if sends++; sends == 1 {
							return 0, io.EOF
						}
						return 0, nil
					},
					Find:   func(ctx context.Context) (int, bool, error) { reads++; return 0, false, test.find(ctx, reads) },
					Settle: time.Second,
				})
				if test.shows != (err == nil) || test.shows != (sends == 2) || !test.shows && !errors.Is(err, ampauth.ErrAmbiguous) {
					t.Errorf("%d Sends and %d reads, then %v", sends, reads, err)
				}
				if e, ok := errors.AsType[*ampauth.Error](err); ok && !strings.Contains(e.Error(), "reading failed") {
					t.Errorf("%v does not say that reading failed", err)
				}
			})
		})
	}
	// What is found is there, whatever else went wrong.
	synctest.Test(t, func(t *testing.T) {
		_, err := ampauth.Once(t.Context(), onceWaits, ampauth.Mutation[int]{
			Send: func(context.Context) (int, error) { return 0, io.EOF },
			Find: func(ctx context.Context) (int, bool, error) {
				call(ctx, oneAttempt(stubAnswer(503)), safe)
				return 1, true, nil
			},
		})
		if err != nil {
			t.Error(err)
		}
	})
}
