package fakeamp_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

func TestObtainAnswers(t *testing.T) {
	tests := []struct {
		name, contentType, body string
		status                  int
		want                    string
	}{
		{name: "json", body: login, status: 200},
		{name: "form", contentType: "application/x-www-form-urlencoded", body: "username=issuer&password=correct+horse", status: 200},
		{name: "bad password", body: `{"username":"issuer","password":"wrong"}`, status: 400, want: `{"non_field_errors":["Unable to log in with provided credentials."]}`},
		{name: "unknown user", body: `{"username":"nobody","password":"correct horse"}`, status: 400, want: `{"non_field_errors":["Unable to log in with provided credentials."]}`},
		{name: "no username", body: `{"password":"correct horse"}`, status: 400, want: `{"username":["This field is required."]}`},
		{name: "empty object", body: `{}`, status: 400, want: `{"password":["This field is required."],"username":["This field is required."]}`},
		{name: "no body", body: "", status: 400, want: `{"password":["This field is required."],"username":["This field is required."]}`},
		{name: "blank", body: `{"username":"","password":"x"}`, status: 400, want: `{"username":["This field may not be blank."]}`},
		{name: "null", body: `{"username":null,"password":"x"}`, status: 400, want: `{"username":["This field may not be null."]}`},
		{name: "no text", body: `{"username":[],"password":"x"}`, status: 400, want: `{"username":["Not a valid string."]}`},
		{name: "not json", body: `{"username":`, status: 400, want: `{"detail":"JSON parse error - Expecting value: line 1 column 1 (char 0)"}`},
		{name: "not an object", body: `[1]`, status: 400, want: `{"non_field_errors":["Invalid data. Expected a dictionary."]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake, c := start(t, fakeamp.Config{})
			contentType := tt.contentType
			if contentType == "" {
				contentType = "application/json"
			}
			got := c.do("POST", "/user/obtain_token", tt.body, "Content-Type", contentType)
			got.want(t, tt.status, tt.want)
			if tt.status == 200 && (got.field("token") == "" || got.field("token") != fake.Token("issuer")) {
				t.Errorf("answer %s does not have the live token", got.body)
			}
			if n := len(fake.Effects()); n != 0 {
				t.Errorf("obtain left %d effects, want none", n)
			}
		})
	}
}

func TestObtainReturnsTheSameTokenUntilItIsReplaced(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	obtain := func() string { return c.do("POST", "/user/obtain_token", login).field("token") }
	first := obtain()
	if !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(first) {
		t.Errorf("token %q is not 40 lower-case hex digits", first)
	}
	if obtain() != first {
		t.Error("second obtain made another token")
	}

	rotated := fake.Rotate("issuer")
	if rotated == first || obtain() != rotated {
		t.Error("obtain after Rotate did not return the new token")
	}
	fake.Revoke("issuer")
	if fake.Token("issuer") != "" {
		t.Error("Token returns one that was revoked")
	}
	if obtain() == rotated {
		t.Error("obtain after Revoke returned the old token")
	}
}

func TestNewTokenEachLoginEndsTheOld(t *testing.T) {
	_, c := start(t, fakeamp.Config{NewTokenEachLogin: true})
	first := c.do("POST", "/user/obtain_token", login).field("token")
	second := c.do("POST", "/user/obtain_token", login).field("token")
	c.token = first
	c.do("GET", "/assets", "").want(t, 401, "")
	c.token = second
	c.do("GET", "/assets", "").want(t, 200, "")
}

func TestObtainSetsACookie(t *testing.T) {
	_, c := start(t, fakeamp.Config{})
	got := c.do("POST", "/user/obtain_token", login)
	if cookie := got.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "csrftoken=") {
		t.Errorf("Set-Cookie: %q, want a csrftoken", cookie)
	}
}

func TestUsersAreSeparate(t *testing.T) {
	fake, c := start(t, fakeamp.Config{Users: map[string]string{"a": "first password", "b": "second password"}})
	c.do("POST", "/user/obtain_token", `{"username":"a","password":"second password"}`).want(t, 400, "")
	c.do("POST", "/user/obtain_token", login).want(t, 400, "") // No default user beside given ones.
	a, b := fake.Rotate("a"), fake.Rotate("b")
	fake.Revoke("a")
	c.token = b
	c.do("GET", "/assets", "").want(t, 200, "")
	c.token = a
	c.do("GET", "/assets", "").want(t, 401, "")
	if got := fake.Rotate("nobody") + fake.Token("nobody"); got != "" {
		t.Errorf("unknown user has token %q", got)
	}
}

func TestNotAuthenticatedTexts(t *testing.T) {
	tests := []struct{ name, header, want string }{
		{"no header", "", "Authentication credentials were not provided."},
		{"other scheme", "Bearer " + unknownTok, "Authentication credentials were not provided."},
		{"scheme alone", "token", "Invalid token header. No credentials provided."},
		{"space in token", "token a b", "Invalid token header. Token string should not contain spaces."},
		{"two headers", "token " + unknownTok + "|token " + unknownTok, "Invalid token header. Token string should not contain spaces."},
		{"unknown token", "token " + unknownTok, "Invalid token."},
		{"token in upper case", "UPPER", "Invalid token."},
		{"inactive", "INACTIVE", "User inactive or deleted."},
	}
	for _, tt := range tests {
		for _, forbidden := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				fake, c := start(t, fakeamp.Config{Forbidden: forbidden})
				header := tt.header
				switch header {
				case "UPPER":
					header = "token " + strings.ToUpper(fake.Rotate("issuer"))
				case "INACTIVE":
					header = "token " + fake.Rotate("issuer")
					fake.SetActive("issuer", false)
				}
				var got reply
				if header == "" {
					got = c.do("GET", "/assets", "")
				} else {
					got = c.do("GET", "/assets", "", "Authorization", header)
				}
				status, challenge := 401, "Token"
				if forbidden {
					status, challenge = 403, ""
				}
				got.want(t, status, `{"detail":"`+tt.want+`"}`)
				if v := got.header.Get("WWW-Authenticate"); v != challenge {
					t.Errorf("WWW-Authenticate %q, want %q", v, challenge)
				}
			})
		}
	}
}

func TestSchemeIsComparedWithoutCase(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	token := fake.Rotate("issuer")
	for _, scheme := range []string{"token", "Token", "TOKEN"} {
		c.do("GET", "/assets", "", "Authorization", scheme+" "+token).want(t, 200, "")
	}

	fake, c = start(t, fakeamp.Config{Scheme: "Bearer"})
	token = fake.Rotate("issuer")
	c.do("GET", "/assets", "", "Authorization", "bearer "+token).want(t, 200, "")
	got := c.do("GET", "/assets", "", "Authorization", "token "+token)
	got.want(t, 401, "")
	if v := got.header.Get("WWW-Authenticate"); v != "Bearer" {
		t.Errorf("WWW-Authenticate %q, want Bearer", v)
	}
}

func TestInactiveUserCannotObtain(t *testing.T) {
	fake, c := start(t, fakeamp.Config{})
	fake.SetActive("issuer", false)
	c.do("POST", "/user/obtain_token", login).want(t, 400, `{"non_field_errors":["Unable to log in with provided credentials."]}`)
	fake.SetActive("issuer", true)
	c.do("POST", "/user/obtain_token", login).want(t, 200, "")
}

func TestRefreshReplacesTheTokenAtOnce(t *testing.T) {
	fake, c := startLoggedIn(t)
	got := c.do("GET", "/user/refresh-token", "")
	got.want(t, 200, "")
	if got.field("token") == c.token || got.field("token") != fake.Token("issuer") {
		t.Error("refresh did not return a new live token")
	}
	c.do("GET", "/user/refresh-token", "").want(t, 401, `{"detail":"Invalid token."}`)
	if n := len(fake.Effects()); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func TestNoRefreshAnswersNotFound(t *testing.T) {
	fake, c := start(t, fakeamp.Config{NoRefresh: true})
	c.token = fake.Rotate("issuer")
	c.do("GET", "/user/refresh-token", "").want(t, 404, `{"detail":"Not found."}`)
	if fake.Token("issuer") != c.token || fake.Count(refreshRoute) != 1 {
		t.Error("the token was replaced, or the request not counted")
	}
}

func TestChangePasswordReplacesPasswordAndToken(t *testing.T) {
	fake, c := startLoggedIn(t)
	got := c.do("POST", "/user/change-password", `{"password":"battery staple"}`)
	got.want(t, 200, `{"username":"issuer","password":"battery staple","token":"`+fake.Token("issuer")+`"}`)
	c.do("GET", "/assets", "").want(t, 401, "") // The old token.
	c.token = ""
	c.do("POST", "/user/obtain_token", login).want(t, 400, "")
	c.do("POST", "/user/obtain_token", `{"username":"issuer","password":"battery staple"}`).want(t, 200, "")
}

func TestSetPasswordActsAsChangePassword(t *testing.T) {
	fake, c := startLoggedIn(t)
	fake.SetPassword("issuer", "battery staple")
	c.do("GET", "/assets", "").want(t, 401, "")
	c.token = fake.Token("issuer")
	c.do("GET", "/assets", "").want(t, 200, "")
	fake.SetPassword("another", "with a password")
	c.token = ""
	c.do("POST", "/user/obtain_token", `{"username":"another","password":"with a password"}`).want(t, 200, "")
}
