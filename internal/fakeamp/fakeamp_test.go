package fakeamp_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

const (
	obtainRoute  = "POST /user/obtain_token"
	refreshRoute = "GET /user/refresh-token"
	issueRoute   = "POST /assets/issue"

	login      = `{"username":"issuer","password":"correct horse"}`
	someAsset  = "11111111-2222-4333-8444-555555555555"
	unknownTok = "0123456789abcdef0123456789abcdef01234567"
)

// concretePath fills in the parameters of a template.
func concretePath(route string) (method, path string) {
	method, path, _ = strings.Cut(route, " ")
	for _, id := range []string{"registeredUserId", "categoryId", "assignmentId", "managerId"} {
		path = strings.ReplaceAll(path, "{"+id+"}", "7")
	}
	for _, id := range []string{"assetUuid", "distributionUuid", "gaid", "txid"} {
		path = strings.ReplaceAll(path, "{"+id+"}", someAsset)
	}
	if strings.HasSuffix(path, "/distributions/create") {
		path += "/"
	}
	return method, path
}

func TestRoutesHaveTheClassesOfTheAPI(t *testing.T) {
	got := make(map[string]int)
	for _, class := range fakeamp.Routes() {
		got[class]++
	}
	for class, want := range map[string]int{"never": 16, "resend": 3, "idempotent": 25, "safe": 34} {
		if got[class] != want {
			t.Errorf("%d operations of class %q, want %d", got[class], class, want)
		}
	}
}

// Routes that read one object answer 404 as long as nobody created it; every
// other operation succeeds with made-up ids.
func TestEveryOperationAnswers(t *testing.T) {
	readsOne := []string{
		"GET /assets/{assetUuid}", "GET /registered_users/{registeredUserId}",
		"GET /assets/{assetUuid}/assignments/{assignmentId}",
		"GET /assets/{assetUuid}/distributions/{distributionUuid}",
		"GET /gaids/{gaid}/registered_user",
	}
	for route := range fakeamp.Routes() {
		t.Run(route, func(t *testing.T) {
			fake, c := startLoggedIn(t)
			method, path := concretePath(route)
			body := ""
			switch {
			case route == obtainRoute:
				body, c.token = login, ""
			case strings.Contains(route, "change-password"):
				body = `{"password":"a new password"}`
			case strings.HasSuffix(route, "/assignments/create"):
				body = `{"assignments":[{}]}`
			case method != http.MethodGet:
				body = `{}`
			}
			got := c.do(method, path, body)
			if slices.Contains(readsOne, route) {
				got.want(t, http.StatusNotFound, `{"detail":"Not found."}`)
			} else if got.status/100 != 2 {
				t.Errorf("got %d %s, want success", got.status, got.body)
			}
			if got.status != http.StatusNoContent && !json.Valid([]byte(got.body)) {
				t.Errorf("body %q is not JSON", got.body)
			}
			if n := fake.Count(route); n != 1 {
				t.Errorf("Count = %d, want 1; all: %v", n, fake.Counts())
			}
			if v := fake.Violations(); len(v) > 0 {
				t.Errorf("violations: %q", v)
			}
		})
	}
}

func TestOperationsThatMustNotRepeatAreLogged(t *testing.T) {
	for route, class := range fakeamp.Routes() {
		t.Run(route, func(t *testing.T) {
			fake, c := startLoggedIn(t)
			method, path := concretePath(route)
			body := `{"username":"issuer","password":"correct horse","assignments":[{}]}`
			if method == http.MethodGet {
				body = ""
			}
			for range 2 {
				c.token = fake.Token("issuer") // A refresh changes it.
				c.do(method, path, body, "X-Operation-Id", "op-1")
			}
			effects, repeated := fake.Effects(), fake.Repeated()
			if class != "never" {
				if len(effects) != 0 || len(repeated) != 0 {
					t.Errorf("effects %v, repeated %v; want none", effects, repeated)
				}
				return
			}
			if len(effects) != 2 || repeated["op-1"] != 2 {
				t.Fatalf("effects %v, repeated %v; want two of op-1", effects, repeated)
			}
			if e := effects[1]; e.Seq != 2 || e.Route != route || e.ID != "op-1" || e.User != "issuer" || e.Fault != "" || e.Time.IsZero() {
				t.Errorf("second effect = %+v", e)
			}
		})
	}
}

func TestRefusedOperationsAreNotLogged(t *testing.T) {
	fake, c := startLoggedIn(t)
	c.do("POST", "/assets/issue", `{"name":`).want(t, 400, "")
	c.do("POST", "/assets/issue", "").want(t, 400, "")
	c.do("POST", "/user/change-password", `{}`).want(t, 400, `{"password":["This field is required."]}`)
	c.do("GET", "/assets/"+someAsset+"/distributions/create", "").want(t, 301, "")
	c.token = unknownTok
	c.do("POST", "/assets/issue", `{}`).want(t, 401, "")
	c.do("GET", "/user/refresh-token", "").want(t, 401, "")
	if got := fake.Effects(); len(got) > 0 {
		t.Errorf("effects: %v", got)
	}
}

func TestOperationsOfDifferentIDsAreNotRepeated(t *testing.T) {
	fake, c := startLoggedIn(t)
	c.do("POST", "/assets/issue", `{}`, "X-Operation-Id", "a")
	c.do("POST", "/assets/issue", `{}`, "X-Operation-Id", "b")
	c.do("POST", "/assets/issue", `{}`)
	c.do("POST", "/assets/issue", `{}`)
	if got := fake.Repeated(); len(got) > 0 {
		t.Errorf("Repeated = %v, want none", got)
	}
}

func TestIssuedAssetCanBeReadAndDistributed(t *testing.T) {
	_, c := startLoggedIn(t)
	issued := c.do("POST", "/assets/issue", `{"name":"Bond","ticker":"BND","precision":2,"is_reissuable":true}`)
	issued.want(t, 201, "")
	asset := "/assets/" + issued.field("asset_uuid")
	read := c.do("GET", asset, "")
	if read.status != 200 || read.field("name") != "Bond" || read.field("asset_id") != issued.field("asset_id") {
		t.Errorf("GET %s: %d %s", asset, read.status, read.body)
	}
	c.do("GET", "/assets/", "").want(t, 200, "["+read.body+"]")

	c.do("GET", asset+"/assignments", "").want(t, 200, "[]")
	c.do("POST", asset+"/assignments/create", `{"assignments":[{},{}]}`).want(t, 400, "")
	made := c.do("POST", asset+"/assignments/create", `{"assignments":[{"registered_user":1,"amount":5,"ready_for_distribution":true}]}`)
	made.want(t, 200, "")
	c.do("GET", asset+"/assignments", "").want(t, 200, made.body)

	first := c.do("GET", asset+"/distributions/create/", "")
	distribution := asset + "/distributions/" + first.field("distribution_uuid")
	if got := c.do("GET", distribution, ""); got.field("distribution_status") != "UNCONFIRMED" {
		t.Errorf("new distribution: %s", got.body)
	}
	if second := c.do("GET", asset+"/distributions/create/", ""); second.status != 200 || second.field("distribution_uuid") != "" {
		t.Errorf("second distribution of the same assignment: %d %s, want 200 without distribution_uuid", second.status, second.body)
	}
	c.do("GET", asset+"/distributions", "").want(t, 200, "[]") // Not while it is unconfirmed.
	for range 2 {
		if got := c.do("POST", distribution+"/confirm", `{}`); got.field("distribution_status") != "CONFIRMED" {
			t.Errorf("confirm: %d %s", got.status, got.body)
		}
	}
	if got := c.do("GET", asset+"/distributions", ""); !strings.Contains(got.body, first.field("distribution_uuid")) {
		t.Errorf("list after confirmation: %s", got.body)
	}
}

func TestAddedUserCanBeRead(t *testing.T) {
	_, c := startLoggedIn(t)
	added := c.do("POST", "/registered_users/add", `{"name":"Alice","is_company":true}`)
	added.want(t, 201, `{"id":1,"GAID":null,"is_company":true,"name":"Alice","categories":[],"creator":1}`)
	c.do("GET", "/registered_users/1", "").want(t, 200, added.body)
	c.do("GET", "/registered_users", "").want(t, 200, "["+added.body+"]")
	c.do("GET", "/registered_users/2", "").want(t, 404, `{"detail":"Not found."}`)
}

func TestBodiesMustBeJSON(t *testing.T) {
	_, c := startLoggedIn(t)
	for route := range fakeamp.Routes() {
		method, path := concretePath(route)
		if method != http.MethodPost {
			continue
		}
		got := c.do(method, path, `{"name":"half`)
		if got.status != 400 || !strings.HasPrefix(got.field("detail"), "JSON parse error - ") {
			t.Errorf("%s with half a body: %d %s", route, got.status, got.body)
		}
	}
	c.do("POST", "/assets/issue", `[]`).want(t, 400, "")
}

func TestSlashes(t *testing.T) {
	_, c := startLoggedIn(t)
	tests := []struct {
		path     string
		status   int
		location string
	}{
		{path: "/assets", status: 200},
		{path: "/assets/", status: 200},
		{path: "/registered_users", status: 200},
		{path: "/registered_users/", status: 200},
		{path: "/categories/", status: 200},
		{path: "/managers/", status: 200},
		{path: "//assets", status: 404},
		{path: "/assets//", status: 404},
		{path: "/info/", status: 404},
		{path: "/user/refresh-token/", status: 404},
		{path: "/assets/" + someAsset + "/balance/", status: 404},
		{path: "/assets/" + someAsset + "/distributions/create/", status: 200},
		{
			path:     "/assets/" + someAsset + "/distributions/create?x=1",
			status:   301,
			location: "/api/assets/" + someAsset + "/distributions/create/?x=1",
		},
	}
	for _, tt := range tests {
		got := c.do("GET", tt.path, "")
		if got.status != tt.status || got.header.Get("Location") != tt.location {
			t.Errorf("GET %s: %d, Location %q; want %d, %q", tt.path, got.status, got.header.Get("Location"), tt.status, tt.location)
		}
	}
	c.do("POST", "/user/obtain_token/", login).want(t, 404, "")
	c.do("POST", "/assets/"+someAsset+"/distributions/create", "").want(t, 301, "")
}

func TestUnknownPathsAreNotFound(t *testing.T) {
	fake, c := startLoggedIn(t)
	for _, path := range []string{"/user/refresh_token", "/user/change_password", "/nothing", "/assets/a/b/c/d", "/managers/abc", "", "/"} {
		c.do("POST", path, "").want(t, 404, `{"detail":"Not found."}`)
	}
	c.base = strings.TrimSuffix(c.base, "/api")
	c.do("GET", "/info", "").want(t, 404, `{"detail":"Not found."}`)
	if n := fake.Count("POST /user/refresh_token"); n != 1 {
		t.Errorf("Count of an unknown path = %d, want 1", n)
	}
}

func TestWrongMethodIsNotAllowed(t *testing.T) {
	_, c := startLoggedIn(t)
	tests := []struct{ method, path, allow string }{
		{"GET", "/user/obtain_token", "POST, OPTIONS"},
		{"POST", "/user/refresh-token", "GET, HEAD, OPTIONS"},
		{"GET", "/assets/issue", "POST, OPTIONS"},
		{"POST", "/managers/7/assets/" + someAsset + "/remove", "PUT, OPTIONS"},
	}
	for _, tt := range tests {
		got := c.do(tt.method, tt.path, "")
		got.want(t, 405, `{"detail":"Method \"`+tt.method+`\" not allowed."}`)
		if allow := got.header.Get("Allow"); allow != tt.allow {
			t.Errorf("%s %s: Allow %q, want %q", tt.method, tt.path, allow, tt.allow)
		}
	}
	c.token = unknownTok // Who asks comes before what is asked for.
	c.do("POST", "/user/refresh-token", "").want(t, 401, "")
}

func TestHeadActsAsGet(t *testing.T) {
	fake, c := startLoggedIn(t)
	got := c.do("HEAD", "/assets/"+someAsset+"/register", "")
	got.want(t, 200, "")
	if got.body != "" || got.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: body %q, Content-Length %q", got.body, got.header.Get("Content-Length"))
	}
	if n := fake.Count("GET /assets/{assetUuid}/register"); n != 1 || len(fake.Effects()) != 1 {
		t.Errorf("counted %d, effects %v; want 1 of each", n, fake.Effects())
	}
}

func TestHeadersAreThoseOfDRF(t *testing.T) {
	_, c := startLoggedIn(t)
	got := c.do("GET", "/assets", "")
	for name, want := range map[string]string{
		"Content-Type": "application/json",
		"Allow":        "GET, HEAD, OPTIONS",
		"Vary":         "Accept, Cookie",
	} {
		if v := got.header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if got := c.do("OPTIONS", "/assets", ""); got.status != 200 || got.header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("OPTIONS: %d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

func TestBaseIsConfigurable(t *testing.T) {
	_, c := start(t, fakeamp.Config{Base: "/v1/amp/"})
	c.do("GET", "/info", "").want(t, 404, "")
	c.base = strings.TrimSuffix(c.base, "/api") + "/v1/amp"
	c.do("GET", "/info", "").want(t, 200, "")
}

func TestOpenRoutesNeedNoToken(t *testing.T) {
	_, c := start(t, fakeamp.Config{})
	c.do("GET", "/info", "").want(t, 200, `{"version":"0.1.12","notes":""}`)
	c.do("GET", "/changelog", "").want(t, 200, "")
}

func TestConcurrentUse(t *testing.T) {
	fake, c := startLoggedIn(t)
	fake.Inject(fakeamp.Fault{Route: issueRoute, Times: 5, Status: 503})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c.try("POST", "/assets/issue", `{}`)
			fake.Token("issuer")
			fake.Counts()
			fake.Effects()
			fake.Violations()
		})
	}
	wg.Wait()
	if n := len(fake.Effects()); n != 15 {
		t.Errorf("%d effects of 20 requests with 5 faults, want 15", n)
	}
}

func TestTokenEndsAfterItsLifetime(t *testing.T) {
	inBubble(t, fakeamp.Config{Lifetime: time.Hour}, func(t *testing.T, fake *fakeamp.Server, c *client) {
		first := c.do("POST", "/user/obtain_token", login).field("token")
		c.token = first
		time.Sleep(time.Hour - time.Second)
		c.do("GET", "/assets", "").want(t, 200, "")
		if fake.Token("issuer") != first {
			t.Error("Token is not the live one before its end")
		}

		time.Sleep(time.Second)
		c.do("GET", "/assets", "").want(t, 401, `{"detail":"Invalid token."}`)
		if fake.Token("issuer") != "" {
			t.Error("Token returns one that is expired")
		}
		c.token = ""
		second := c.do("POST", "/user/obtain_token", login).field("token")
		if second == "" || second == first {
			t.Errorf("obtain after the end returned no new token")
		}
	})
}
