package ampauthtest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth/ampauthtest"
)

const issue = "POST /assets/issue"

// Each wrong use is one error that says what would be right, and does nothing else.
func TestWrongUsesAreToldOneByOne(t *testing.T) {
	type fault = ampauthtest.Fault
	type options = ampauthtest.Options
	inject := func(f fault) func(*recorder, *ampauthtest.Server) {
		return func(_ *recorder, amp *ampauthtest.Server) { amp.Inject(f) }
	}
	count := func(route string) func(*recorder, *ampauthtest.Server) {
		return func(_ *recorder, amp *ampauthtest.Server) { amp.Count(route) }
	}
	late := func(use func(*ampauthtest.Server)) func(*recorder, *ampauthtest.Server) {
		return func(r *recorder, amp *ampauthtest.Server) {
			r.end()
			use(amp)
		}
	}
	for _, test := range []struct {
		name    string
		options options
		use     func(*recorder, *ampauthtest.Server)
		want    string
	}{
		{name: "unknown route", use: inject(fault{Route: "POST /wallets/open", Reset: true}), want: `Inject: Fault 1: Route "POST /wallets/open" is none of AMP's`},
		{name: "misspelt route", use: inject(fault{Route: "POST /asset/issue", Reset: true}), want: `Inject: Fault 1: Route "POST /asset/issue" is none of AMP's; is it "POST /assets/issue"?`},
		{name: "another method", use: inject(fault{Route: "GET /assets/issue", Reset: true}), want: `Inject: Fault 1: Route "GET /assets/issue": AMP has only "POST /assets/issue" at this path`},
		{name: "lower case", use: inject(fault{Route: "post /assets/issue", Reset: true}), want: `Inject: Fault 1: Route "post /assets/issue": methods are in upper case: "POST /assets/issue"`},
		{name: "one path", use: inject(fault{Route: "GET /assets/6f0e-42", Reset: true}), want: `Inject: Fault 1: Route "GET /assets/6f0e-42" is one path; the route of all like it is "GET /assets/{assetUuid}"`},
		{name: "other braces", use: inject(fault{Route: "/assets/{uuid}/lock", Reset: true}), want: `Inject: Fault 1: Route "/assets/{uuid}/lock" is one path; the route of all like it is "/assets/{assetUuid}/lock"`},
		{name: "URL", use: inject(fault{Route: "http://127.0.0.1/api/assets", Reset: true}), want: `Inject: Fault 1: Route "http://127.0.0.1/api/assets" is a URL; a route is a method and a path below URL, such as "POST /assets/issue"`},
		{name: "base", use: inject(fault{Route: "POST /api/assets/issue", Reset: true}), want: `Inject: Fault 1: Route "POST /api/assets/issue": paths are below URL, which ends in /api already: "POST /assets/issue"`},
		{name: "slash alone", use: inject(fault{Route: "/", Reset: true}), want: `Inject: Fault 1: Route "/" is none of AMP's`},
		{name: "repeat of a slash alone", options: options{Repeat: []string{"/"}}, want: `NewServer: Repeat: Route "/" is none of AMP's`},
		{name: "no slash", use: inject(fault{Route: "POST assets/issue", Reset: true}), want: `Inject: Fault 1: Route "POST assets/issue": the path of a route begins with a slash`},
		{name: "times", use: inject(fault{Route: issue, Times: -2, Reset: true}), want: `Inject: Fault 1: Times is -2; it is a number of requests, or -1 for all`},
		{name: "negative delay", use: inject(fault{Route: issue, Delay: -time.Second}), want: `Inject: Fault 1: Delay is -1s; it must not be negative`},
		{name: "reset and status", use: inject(fault{Route: issue, Reset: true, Status: 503}), want: `Inject: Fault 1: Reset and Status exclude each other: a connection that breaks brings no answer`},
		{name: "reset and retry-after", use: inject(fault{Route: issue, Reset: true, RetryAfter: "1"}), want: `Inject: Fault 1: Reset and RetryAfter exclude each other: a connection that breaks brings no answer`},
		{name: "retry-after alone", use: inject(fault{Route: issue, RetryAfter: "1"}), want: `Inject: Fault 1: RetryAfter needs a Status, such as 429 or 503`},
		{name: "retry-after of a success", use: inject(fault{Route: issue, Status: 201, RetryAfter: "1"}), want: `Inject: Fault 1: RetryAfter has no meaning with Status 201; it goes with 429 or 503`},
		{name: "retry-after as a duration", use: inject(fault{Route: issue, Status: 429, RetryAfter: "1s"}), want: `Inject: Fault 1: RetryAfter is "1s"; it is whole seconds, such as "2", or an HTTP date`},
		{name: "retry-after in the past", use: inject(fault{Route: issue, Status: 429, RetryAfter: "-1"}), want: `Inject: Fault 1: RetryAfter is "-1"; it is whole seconds, such as "2", or an HTTP date`},
		{name: "status too low", use: inject(fault{Route: issue, Status: 100}), want: `Inject: Fault 1: Status is 100; it must be from 200 to 299 or from 400 to 599`},
		{name: "status too high", use: inject(fault{Route: issue, Status: 600}), want: `Inject: Fault 1: Status is 600; it must be from 200 to 299 or from 400 to 599`},
		{name: "negative status", use: inject(fault{Route: issue, Status: -503}), want: `Inject: Fault 1: Status is -503; it must be from 200 to 299 or from 400 to 599`},
		{name: "redirect", use: inject(fault{Route: issue, Status: 302}), want: `Inject: Fault 1: Status is 302; a redirect needs a Location, and a Fault has none`},
		{name: "performed, and denied", use: inject(fault{Route: issue, AfterIt: true, Status: 429}), want: `Inject: Fault 1: AfterIt and Status 429 exclude each other: that answer says that nothing was performed, and a client may send the request again`},
		{name: "nothing", use: inject(fault{Route: issue, AfterIt: true}), want: `Inject: Fault 1: it changes nothing: set a Status, a Delay or Reset`},
		{name: "negative late", use: inject(fault{Route: issue, Late: -time.Second, Reset: true}), want: `Inject: Fault 1: Late is -1s; it must not be negative`},
		{name: "late and after it", use: inject(fault{Route: issue, Late: time.Second, AfterIt: true, Reset: true}), want: `Inject: Fault 1: Late and AfterIt exclude each other: what is late is performed after the answer`},
		{name: "late alone", use: inject(fault{Route: issue, Late: time.Second, Delay: time.Second}), want: `Inject: Fault 1: Late needs a Status or Reset, after which the operation is performed`},
		{name: "late, and denied", use: inject(fault{Route: issue, Late: time.Second, Status: 421}), want: `Inject: Fault 1: Late and Status 421 exclude each other: that answer says that nothing was performed, and a client may send the request again`},
		{name: "the second of three", use: func(_ *recorder, amp *ampauthtest.Server) {
			amp.Inject(fault{Status: 500}, fault{Times: -7, Status: 500}, fault{Status: 500})
		}, want: `Inject: Fault 2: Times is -7; it is a number of requests, or -1 for all`},
		{name: "inject after the end", use: late(func(amp *ampauthtest.Server) { amp.Inject(fault{Status: 500}) }), want: `Inject after the end of the test: a goroutine or cleanup outlives it`},
		{name: "revoke after the end", use: late((*ampauthtest.Server).Revoke), want: `Revoke after the end of the test: a goroutine or cleanup outlives it`},
		{name: "refresh after the end", use: late((*ampauthtest.Server).RefreshElsewhere), want: `RefreshElsewhere after the end of the test: a goroutine or cleanup outlives it`},
		{name: "client after the end", use: late(func(amp *ampauthtest.Server) { amp.Client().Close() }), want: `Client after the end of the test: a goroutine or cleanup outlives it`},
		{name: "count of an unknown route", use: count("POST /assets/isue"), want: `Count: Route "POST /assets/isue" is none of AMP's; is it "POST /assets/issue"?`},
		{name: "count of another method", use: count("POST /assets"), want: `Count: Route "POST /assets": AMP has only "GET /assets" at this path`},
		{name: "negative lifetime", options: options{Lifetime: -time.Hour}, want: `NewServer: Lifetime is -1h0m0s; it must not be negative, and zero is no end`},
		{name: "tolerant and repeat", options: options{Tolerant: true, Repeat: []string{issue}}, want: `NewServer: Tolerant lets pass what Repeat names; leave out one of them`},
		{name: "repeat of an unknown route", options: options{Repeat: []string{"POST /issue"}}, want: `NewServer: Repeat: Route "POST /issue" is none of AMP's`},
		{name: "repeat of all", options: options{Repeat: []string{""}}, want: `NewServer: Repeat: a route is empty; Tolerant is for all routes`},
		{name: "repeat of a read", options: options{Repeat: []string{"GET /assets"}}, want: `NewServer: Repeat: Route "GET /assets" is no mutation, and may be repeated anyway`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, amp := record(t, test.options)
			if test.use != nil {
				test.use(r, amp)
			}
			if got := r.end(); len(got) != 1 || got[0] != "ampauthtest: "+test.want {
				t.Errorf("told\n\t%q, want\n\t%q", got, "ampauthtest: "+test.want)
			}
			for _, line := range r.logs {
				if strings.Contains(line, issue) {
					t.Errorf("the wrong fault was injected: %s", line)
				}
			}
		})
	}
}

func TestServerWithoutATestPanics(t *testing.T) {
	defer func() {
		if p := fmt.Sprint(recover()); p != "ampauthtest: NewServer needs the t of a test" {
			t.Errorf("panic %q", p)
		}
	}()
	ampauthtest.NewServer(nil, ampauthtest.Options{})
}

// A t that has completed takes no error: the message must not get lost in its panic.
func TestUseAfterTheTestPanicsWithItsOwnMessage(t *testing.T) {
	r, amp := record(t, ampauthtest.Options{})
	r.end()
	r.over = true
	defer func() {
		if p := fmt.Sprint(recover()); !strings.HasPrefix(p, "ampauthtest: Revoke after the end of the test") {
			t.Errorf("panic %q", p)
		}
	}()
	amp.Revoke()
}

func TestRoutesMayBeWrittenInAnyOfTheirForms(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	for _, route := range []string{
		"", issue, "/assets/issue", "POST /assets/issue/", "GET /assets/", "/assets",
		"GET /assets/{assetUuid}/distributions/create", "GET /assets/{assetUuid}/distributions/create/",
	} {
		amp.Count(route)
		amp.Inject(ampauthtest.Fault{Route: route, Status: 500})
	}
}

func TestFaultsDoWhatTheySay(t *testing.T) {
	for _, test := range []struct {
		name    string
		fault   ampauthtest.Fault
		status  int // 0 for no answer
		effects int
	}{
		{"none", ampauthtest.Fault{}, 201, 1},
		{"status", ampauthtest.Fault{Route: issue, Status: 500}, 500, 0},
		{"status, performed", ampauthtest.Fault{Route: issue, Status: 502, AfterIt: true}, 502, 1},
		{"reset", ampauthtest.Fault{Route: issue, Reset: true}, 0, 0},
		{"reset, performed", ampauthtest.Fault{Route: issue, Reset: true, AfterIt: true}, 0, 1},
		{"delay", ampauthtest.Fault{Route: issue, Delay: time.Millisecond}, 201, 1},
		{"delay and reset, performed", ampauthtest.Fault{Route: issue, Delay: time.Millisecond, Reset: true, AfterIt: true}, 0, 1},
		{"of any method", ampauthtest.Fault{Route: "/assets/issue", Status: 403}, 403, 0},
		{"with a date", ampauthtest.Fault{Route: issue, Status: 503, RetryAfter: time.Now().UTC().Format(http.TimeFormat)}, 503, 0},
		{"of another route", ampauthtest.Fault{Route: "GET /assets", Reset: true}, 201, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			amp := ampauthtest.NewServer(t, ampauthtest.Options{})
			amp.Inject(test.fault)
			if status, answer := send(t, amp, "POST", "/assets/issue", `{"name":"Bond"}`); status != test.status {
				t.Errorf("%d %s, want %d", status, answer, test.status)
			}
			if n := len(amp.Effects()); n != test.effects {
				t.Errorf("performed %d times, want %d", n, test.effects)
			}
		})
	}
}

func TestTimesIsANumberOfRequests(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	amp.Inject(
		ampauthtest.Fault{Route: "GET /assets", Status: 500},
		ampauthtest.Fault{Route: "GET /assets", Status: 502, Times: 2},
		ampauthtest.Fault{Route: "GET /assets", Status: 503, Times: -1},
	)
	for i, want := range []int{500, 502, 502, 503, 503, 503} {
		if status, _ := send(t, amp, "GET", "/assets", ""); status != want {
			t.Errorf("request %d: %d, want %d", i+1, status, want)
		}
	}
}

func TestFaultThatNobodyMetIsNoted(t *testing.T) {
	r, amp := record(t, ampauthtest.Options{})
	amp.Inject(ampauthtest.Fault{Route: issue, Status: 503, AfterIt: true})
	if errors := r.end(); len(errors) > 0 {
		t.Errorf("errors %q", errors)
	}
	one(t, r.logs, `no request met the fault "Status 503 after it, on POST /assets/issue"`)
}
