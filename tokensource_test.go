package ampauth_test

import (
	"testing"

	"github.com/ampauth/ampauth"
)

func TestStaticTokenSourceYieldsItsToken(t *testing.T) {
	source := ampauth.StaticTokenSource(ampauth.SecretFromString("a-token"))
	token, err := source.Token(t.Context())
	if err != nil || ampReveal(token.Value) != "a-token" || token.IsExpired() {
		t.Errorf("Token = %v, %v", token, err)
	}
	if _, renews := source.(ampauth.Renewer); renews {
		t.Error("it claims to renew")
	}
}

func TestEmptyStaticTokenSourceIsAnError(t *testing.T) {
	destroyed := ampauth.SecretFromString("a-token")
	destroyed.Destroy()
	for name, secret := range map[string]ampauth.Secret{
		"zero": {}, "made of nothing": ampauth.SecretFromString(""), "destroyed": destroyed,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ampauth.StaticTokenSource(secret).Token(t.Context())
			if e := stubError(t, err, ampauth.ErrObtainFailed); e.Outcome != ampauth.NotSent {
				t.Errorf("Outcome = %v, want NotSent", e.Outcome)
			}
		})
	}
}
