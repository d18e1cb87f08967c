package fakeamp_test

import (
	"slices"
	"testing"
)

// Two sendings of one request are told by route, path and body, or by the operation id
// that a test gives it.
func TestRepeatedEffectSaysOfWhich(t *testing.T) {
	const bond, share = `{"name":"Bond"}`, `{"name":"Share"}`
	other := "22222222-2222-4333-8444-555555555555"
	type sent struct{ method, path, body, id string }
	tests := []struct {
		name string
		sent []sent
		want []int
	}{
		{"the same body", []sent{{"POST", "/assets/issue", bond, ""}, {"POST", "/assets/issue", share, ""}, {"POST", "/assets/issue", bond, ""}, {"POST", "/assets/issue", bond, ""}}, []int{0, 0, 1, 1}},
		{"another path", []sent{{"GET", "/assets/" + someAsset + "/register", "", ""}, {"GET", "/assets/" + other + "/register", "", ""}, {"GET", "/assets/" + other + "/register-authorized", "", ""}, {"GET", "/assets/" + other + "/register", "", ""}}, []int{0, 0, 0, 2}},
		{"the same id", []sent{{"POST", "/assets/issue", bond, "a"}, {"POST", "/assets/issue", share, "a"}}, []int{0, 1}},
		{"another id", []sent{{"POST", "/assets/issue", bond, "a"}, {"POST", "/assets/issue", bond, "b"}, {"POST", "/assets/issue", bond, ""}}, []int{0, 0, 0}},
		{"refreshes", []sent{{"GET", "/user/refresh-token", "", ""}, {"GET", "/user/refresh-token", "", ""}}, []int{0, 0}},
		{"what may be repeated", []sent{{"PUT", "/assets/" + someAsset + "/lock", "", ""}, {"PUT", "/assets/" + someAsset + "/lock", "", ""}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake, c := startLoggedIn(t)
			for _, r := range tt.sent {
				c.token = fake.Token("issuer") // A refresh changes it.
				var header []string
				if r.id != "" {
					header = []string{"X-Operation-Id", r.id}
				}
				c.do(r.method, r.path, r.body, header...)
			}
			var got []int
			for i, e := range fake.Effects() {
				got = append(got, e.Repeats)
				if e.Path != tt.sent[i].path {
					t.Errorf("path %q, want %q", e.Path, tt.sent[i].path)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("repeats %v, want %v", got, tt.want)
			}
		})
	}
}
