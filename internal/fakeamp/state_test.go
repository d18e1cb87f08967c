package fakeamp_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What a mutation did is in what can be read, so that a client which does not know
// whether it was performed can find out.
func TestWhatWasPerformedCanBeRead(t *testing.T) {
	const asset, gaid = "/assets/00000000-0000-4000-8000-000000000001", "GAbFLVBCH7WoAGw8MGSM3oAUJhLhq"
	tests := []struct{ name, method, path, body, read, before, after string }{
		{"issue", "POST", "/assets/issue", `{"name":"Bond","ticker":"BND"}`, "/assets", `ticker":"BND`, `"ticker":"BND"`},
		{"register", "GET", asset + "/register", "", asset, `"is_registered":false`, `"is_registered":true`},
		{"register-authorized", "GET", asset + "/register-authorized", "", asset, `"is_authorized":false`, `"is_authorized":true`},
		{"assign", "POST", asset + "/assignments/create", `{"assignments":[{"registered_user":2,"amount":77}]}`, asset + "/assignments", "[]", `"amount":77`},
		{"treasury", "POST", asset + "/treasury-addresses/add", `["vjU1"]`, asset + "/treasury-addresses", "[]", `["vjU1"]`},
		{"user", "POST", "/registered_users/add", `{"name":"Bob"}`, "/registered_users", "", `"name":"Bob"`},
		{"gaid", "POST", "/registered_users/3/gaids/add", `"` + gaid + `"`, "/registered_users/3/gaids", "[]", `["` + gaid + `"]`},
		{"gaid, of the user", "POST", "/registered_users/3/gaids/add", `"` + gaid + `"`, "/gaids/" + gaid + "/registered_user", "", `"name":"Alice"`},
		{"category", "POST", "/categories/add", `{"name":"Banks"}`, "/categories", "", `"name":"Banks"`},
		{"user in a category", "PUT", "/categories/4/registered_users/3/add", "", "/registered_users/3", `"categories":[]`, `"categories":[4]`},
		{"asset in a category", "PUT", "/categories/4" + asset + "/add", "", asset, `"requirements":[]`, `"requirements":[4]`},
		{"manager", "POST", "/managers/create", `{"username":"carol","password":"its password"}`, "/managers", "", `"username":"carol"`},
		{"unlock a manager", "PUT", "/managers/5/unlock", "", "/managers/5", `"is_locked":true`, `"is_locked":false`},
		{"asset of a manager", "PUT", "/managers/5" + asset + "/add", "", "/managers/5", `"assets":[]`, `"assets":["00000000-`},
		{"lock", "PUT", asset + "/lock", "", asset, `"is_locked":false`, `"is_locked":true`},
		{"edit a user", "PUT", "/registered_users/3/edit", `{"name":"Alice II"}`, "/registered_users/3", "", `"name":"Alice II"`},
		{"edit a category", "PUT", "/categories/4/edit", `{"description":"d"}`, "/categories/4", `"description":null`, `"description":"d"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, c := startLoggedIn(t)
			c.do("POST", "/assets/issue", `{"name":"Share"}`).want(t, 201, "")
			c.do("POST", "/registered_users/add", `{"name":"Alice"}`).want(t, 201, "")
			c.do("POST", "/categories/add", `{"name":"Funds"}`).want(t, 200, "")
			c.do("POST", "/managers/create", `{"username":"dave","password":"its password"}`).want(t, 200, "")
			before := c.do("GET", tt.read, "").body
			if strings.Contains(before, tt.after) || tt.name != "issue" && !strings.Contains(before, tt.before) {
				t.Fatalf("before it %s is %s", tt.read, before)
			}
			if got := c.do(tt.method, tt.path, tt.body); got.status/100 != 2 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if got := c.do("GET", tt.read, ""); !strings.Contains(got.body, tt.after) {
				t.Errorf("after it %s is %s, want %s", tt.read, got.body, tt.after)
			}
		})
	}
}

func TestWhatWasDeletedIsGone(t *testing.T) {
	const asset = "/assets/00000000-0000-4000-8000-000000000001"
	for _, path := range []string{asset, "/registered_users/3", "/categories/4", asset + "/assignments/5"} {
		_, c := startLoggedIn(t)
		c.do("POST", "/assets/issue", `{"name":"Share"}`)
		c.do("POST", "/registered_users/add", `{"name":"Alice"}`)
		c.do("POST", "/categories/add", `{"name":"Funds"}`)
		c.do("POST", asset+"/assignments/create", `{"assignments":[{"registered_user":2,"amount":1}]}`)
		c.do("GET", path, "").want(t, 200, "")
		c.do("DELETE", path+"/delete", "").want(t, 204, "")
		c.do("GET", path, "").want(t, 404, "")
	}
}

func TestReissuanceAndBurnAreThereOnceConfirmed(t *testing.T) {
	_, c := startLoggedIn(t)
	asset := "/assets/" + c.do("POST", "/assets/issue", `{"name":"Share","amount":1000}`).field("asset_uuid")
	c.do("POST", asset+"/reissue-request", `{"amount_to_reissue":50}`).want(t, 200, "")
	c.do("POST", asset+"/burn-request", `{"amount":7}`).want(t, 200, "")
	c.do("GET", asset+"/reissuances", "").want(t, 200, "[]")
	first := c.do("POST", asset+"/reissue-confirm", `{}`)
	c.do("POST", asset+"/reissue-confirm", `{}`).want(t, 200, first.body) // It may be sent again.
	c.do("POST", asset+"/burn-confirm", `{}`).want(t, 200, "{}")
	c.do("POST", asset+"/burn-confirm", `{}`).want(t, 200, "{}")
	if got := c.do("GET", asset+"/reissuances", "").body; strings.Count(got, `"reissuance_amount":50`) != 1 {
		t.Errorf("reissuances: %s", got)
	}
	c.do("GET", asset+"/summary", "").want(t, 200, `{"issued":1000,"reissued":50,"assigned":0,"distributed":0,"burned":7,"blacklisted":0}`)
}

func TestCancelledDistributionLeavesItsAssignmentsToTheNext(t *testing.T) {
	_, c := startLoggedIn(t)
	asset := "/assets/" + c.do("POST", "/assets/issue", `{"name":"Share"}`).field("asset_uuid")
	c.do("POST", asset+"/assignments/create", `{"assignments":[{"registered_user":2,"amount":9,"ready_for_distribution":true}]}`)
	first := c.do("GET", asset+"/distributions/create/", "").field("distribution_uuid")
	c.do("DELETE", asset+"/distributions/"+first+"/cancel", "").want(t, 200, "{}")
	c.do("GET", asset+"/distributions/"+first, "").want(t, 404, "")
	second := c.do("GET", asset+"/distributions/create/", "").field("distribution_uuid")
	if second == "" || second == first {
		t.Fatalf("the next distribution is %q after %q", second, first)
	}
	done := c.do("POST", asset+"/distributions/"+second+"/confirm", `{}`)
	if !strings.Contains(done.body, `"assignments":[{"registered_user":2,"amount":9,"vout":0}]`) {
		t.Errorf("confirmed: %s", done.body)
	}
	c.do("DELETE", asset+"/distributions/"+second+"/cancel", "").want(t, 400, "")
}

// By these a client finds again what it does not know to be performed.
func TestWhatIdentifiesAMutationIsShown(t *testing.T) {
	_, c := startLoggedIn(t)
	made := c.do("POST", "/assets/issue", `{"name":"Share","amount":1000,"issuer_authorization_endpoint":"https://a.example"}`)
	asset := "/assets/" + made.field("asset_uuid")
	for _, want := range []string{`"issuer_authorization_endpoint":"https://a.example"`, `"reissuance_vout":null`} {
		if !strings.Contains(made.body, want) {
			t.Errorf("issued: %s, want %s", made.body, want)
		}
	}

	c.do("POST", asset+"/assignments/create", `{"assignments":[{"registered_user":2,"amount":9,"vesting_timestamp":4102444800,"ready_for_distribution":true}]}`)
	c.do("POST", asset+"/assignments/create", `{"assignments":[{"registered_user":2,"amount":9,"vesting_timestamp":77}]}`)
	c.do("POST", asset+"/assignments/create", `{"assignments":[{"registered_user":2,"amount":9}]}`)
	assigned := c.do("GET", asset+"/assignments", "").body
	for _, want := range []string{
		`"vesting_datetime":"2100-01-01T00:00:00Z","vesting_timestamp":4102444800,"has_vested":false`,
		`"vesting_datetime":"1970-01-01T00:01:17Z","vesting_timestamp":77,"has_vested":true`,
		`"vesting_datetime":null,"vesting_timestamp":null,"has_vested":true`,
	} {
		if strings.Count(assigned, want) != 1 {
			t.Errorf("assigned: %s, want %s", assigned, want)
		}
	}

	c.do("POST", asset+"/reissue-request", `{"amount_to_reissue":50}`)
	reissued := c.do("POST", asset+"/reissue-confirm", `{}`).field("txid")
	distribution := c.do("GET", asset+"/distributions/create/", "").field("distribution_uuid")
	c.do("POST", asset+"/distributions/"+distribution+"/confirm", `{}`)
	var txs []struct {
		Txid           string
		Datetime       time.Time
		IsIssuance     bool `json:"is_issuance"`
		IsReissuance   bool `json:"is_reissuance"`
		IsDistribution bool `json:"is_distribution"`
	}
	if got := c.do("GET", asset+"/txs", ""); json.Unmarshal([]byte(got.body), &txs) != nil || len(txs) != 3 ||
		txs[0].Txid != made.field("txid") || !txs[0].IsIssuance || txs[1].Txid != reissued || !txs[1].IsReissuance || !txs[2].IsDistribution {
		t.Errorf("txs: %s", got.body)
	}
	var reissuances []struct{ Created time.Time }
	if got := c.do("GET", asset+"/reissuances", ""); json.Unmarshal([]byte(got.body), &reissuances) != nil || len(reissuances) != 1 || reissuances[0].Created.IsZero() {
		t.Errorf("reissuances: %s", got.body)
	}
}

// What nobody did is not found.
func TestWhatWasNotPerformedIsNotFound(t *testing.T) {
	_, c := startLoggedIn(t)
	asset := "/assets/" + c.do("POST", "/assets/issue", `{"name":"Share"}`).field("asset_uuid")
	c.do("GET", "/gaids/GAnobody/registered_user", "").want(t, 404, `{"detail":"Not found."}`)
	for _, body := range []string{`{}`, `{"assignments":null}`, `{"registered_user":2,"amount":9}`} {
		c.do("POST", asset+"/assignments/create", body).want(t, 400, `{"assignments":["This field is required."]}`)
	}
	c.do("GET", asset+"/assignments", "").want(t, 200, "[]")
}
