package ampauthtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/ampauthtest"
)

const someAsset = "/assets/6f0e2d1c-0000-4000-8000-000000000001"

// What a careless program does, and what its test is told.
func TestMutationPerformedTwiceFailsTheTest(t *testing.T) {
	const bond = `{"name":"SECRETBOND"}`
	type sent struct {
		method, path, body string
		header             []string
	}
	again := func(n int, s sent) (all []sent) {
		for range n {
			all = append(all, s)
		}
		return all
	}
	for _, test := range []struct {
		name    string
		options ampauthtest.Options
		fault   ampauthtest.Fault
		sent    []sent
		want    []string // nil for no error
	}{
		{name: "after a lost answer", fault: ampauthtest.Fault{Route: issue, AfterIt: true, Reset: true},
			sent: again(2, sent{"POST", "/assets/issue", bond, nil}),
			want: []string{"ampauthtest: POST /assets/issue was performed twice: the same request again ", ` after the first, which had met the fault "Reset after it, on POST /assets/issue"`, "docs/exactly-once.md", `Options{Repeat: []string{"POST /assets/issue"}}`}},
		{name: "three times", sent: again(3, sent{"POST", "/assets/issue", bond, nil}), want: []string{"performed 3 times"}},
		{name: "a GET", sent: again(2, sent{"GET", someAsset + "/register", "", nil}), want: []string{"GET " + someAsset + "/register was performed twice", `"GET /assets/{assetUuid}/register"`}},
		{name: "the same operation", sent: []sent{
			{"POST", "/assets/issue", `{"name":"A"}`, []string{"X-Operation-Id", "op-1"}}, {"POST", "/assets/issue", `{"name":"B"}`, []string{"X-Operation-Id", "op-1"}},
		}, want: []string{`twice: the same operation "op-1" again `}},
		{name: "other operations", sent: []sent{
			{"POST", "/assets/issue", bond, []string{"X-Operation-Id", "op-1"}}, {"POST", "/assets/issue", bond, []string{"X-Operation-Id", "op-2"}},
		}},
		{name: "another body", sent: []sent{{"POST", "/assets/issue", `{"name":"A"}`, nil}, {"POST", "/assets/issue", `{"name":"B"}`, nil}}},
		{name: "another path", sent: []sent{{"GET", someAsset + "/register", "", nil}, {"GET", someAsset + "2/register", "", nil}}},
		{name: "not performed at first", fault: ampauthtest.Fault{Route: issue, Reset: true}, sent: again(2, sent{"POST", "/assets/issue", bond, nil})},
		{name: "what may be repeated", sent: again(2, sent{"PUT", someAsset + "/lock", "", nil})},
		{name: "meant", options: ampauthtest.Options{Repeat: []string{"/assets/issue"}}, sent: again(2, sent{"POST", "/assets/issue", bond, nil})},
		{name: "meant elsewhere", options: ampauthtest.Options{Repeat: []string{"POST /categories/add"}}, sent: again(2, sent{"POST", "/assets/issue", bond, nil}), want: []string{"performed twice"}},
		{name: "tolerated", options: ampauthtest.Options{Tolerant: true}, sent: again(2, sent{"POST", "/assets/issue", bond, nil})},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, amp := record(t, test.options)
			amp.Inject(test.fault)
			for _, s := range test.sent {
				send(t, amp, s.method, s.path, s.body, s.header...)
			}
			errors := r.end()
			if test.want == nil {
				if len(errors) > 0 {
					t.Errorf("errors %q, want none", errors)
				}
				return
			}
			one(t, errors, test.want...)
			if strings.Contains(errors[0], "SECRET") {
				t.Errorf("%q shows the body", errors[0])
			}
		})
	}
}

func TestWhatAClientMustNotSendFailsTheTest(t *testing.T) {
	const login = `{"username":"issuer","password":"correct horse"}`
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		want                     string
	}{
		{"authorization on a login", "POST", "/user/obtain_token", login, nil, "POST /user/obtain_token: login with an Authorization header"},
		{"two authorizations", "GET", "/assets", "", []string{"Authorization", "token SECRET"}, "GET /assets: more than one Authorization header"},
		{"password in a body", "POST", "/assets/issue", login, nil, "POST /assets/issue: password in the body"},
		{"password in a query", "GET", "/assets?p=correct%20horse", "", nil, "GET /assets: token or password in the query"},
		{"body on a GET", "GET", "/assets", "{}", nil, "GET /assets: body on a GET"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, amp := record(t, ampauthtest.Options{})
			send(t, amp, test.method, test.path, test.body, test.header...)
			send(t, amp, test.method, test.path, test.body, test.header...)
			var told []string
			for _, e := range r.end() {
				if !strings.Contains(e, "performed") { // POST /assets/issue, as a consequence
					told = append(told, e)
				}
			}
			one(t, told, "ampauthtest: "+test.want+" (requests: 2)", `"What fails a test"`)
			for _, secret := range []string{"SECRET", "correct horse"} {
				if strings.Contains(told[0], secret) {
					t.Errorf("%q shows a secret", told[0])
				}
			}
			r, amp = record(t, ampauthtest.Options{Tolerant: true})
			send(t, amp, test.method, test.path, test.body, test.header...)
			if errors := r.end(); len(errors) > 0 {
				t.Errorf("not tolerated: %q", errors)
			}
		})
	}
}

func TestEffectsAreToldOneByOne(t *testing.T) {
	amp := ampauthtest.NewServer(t, ampauthtest.Options{Repeat: []string{issue}})
	send(t, amp, "POST", "/assets/issue", `{"name":"A"}`)
	send(t, amp, "POST", "/assets/issue", `{"name":"A"}`)
	send(t, amp, "GET", someAsset+"/register", "", "X-Operation-Id", "op")
	send(t, amp, "GET", "/assets", "")
	var got []ampauthtest.Effect
	for _, e := range amp.Effects() {
		if e.Time.IsZero() {
			t.Error("an effect without its time")
		}
		got = append(got, ampauthtest.Effect{Route: e.Route, Path: e.Path, OperationID: e.OperationID, Twice: e.Twice})
	}
	want := []ampauthtest.Effect{
		{Route: issue, Path: "/assets/issue"},
		{Route: issue, Path: "/assets/issue", Twice: true},
		{Route: "GET /assets/{assetUuid}/register", Path: someAsset + "/register", OperationID: "op"},
	}
	if len(got) != len(want) {
		t.Fatalf("effects %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("effect %d is %+v, want %+v", i+1, got[i], want[i])
		}
	}
}

// Over HTTP/1 a caller who leaves looks like one whose body is shorter than announced.
func TestCallerWhoLeavesInTheMiddleOfABodyFailsNoTest(t *testing.T) {
	for name, in := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, ampauthtest.Options{}, func(t *testing.T, amp *ampauthtest.Server) {
				client := amp.Client()
				get(t, client, amp.URL+"/assets")
				ctx, leave := context.WithCancel(t.Context())
				body, writer := io.Pipe()
				defer writer.Close()
				go func() {
					_, _ = io.WriteString(writer, `{"name":`)
					awaitRequests(amp, issue, 1)
					leave()
				}()
				req, err := http.NewRequestWithContext(ctx, "POST", amp.URL+"/assets/issue", body)
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = 100
				if resp, err := client.Do(req); !errors.Is(err, context.Canceled) {
					t.Errorf("%v, %v, want one that Is context.Canceled", resp, err)
				}
				if n := len(amp.Effects()); n != 0 {
					t.Errorf("performed %d times, want none", n)
				}
			})
		})
	}
}
