package ampauth_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

func TestTokenEndsAtItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := ampauth.Token{ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
		check := func(age time.Duration, expired, soon bool) {
			t.Helper()
			if got := token.IsExpired(); got != expired {
				t.Errorf("after %v: IsExpired = %v", age, got)
			}
			if got := token.ExpiresSoon(5 * time.Minute); got != soon {
				t.Errorf("after %v: ExpiresSoon(5m) = %v", age, got)
			}
			if got := token.Age(); got != age {
				t.Errorf("after %v: Age = %v", age, got)
			}
		}
		check(0, false, false)
		time.Sleep(55*time.Minute - 1)
		check(55*time.Minute-1, false, false)
		time.Sleep(time.Nanosecond)
		check(55*time.Minute, false, true)
		time.Sleep(5*time.Minute - 1)
		check(time.Hour-1, false, true)
		time.Sleep(time.Nanosecond)
		check(time.Hour, true, true)
	})
}

func TestTokenWithoutExpiryHasNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := ampauth.Token{ObtainedAt: time.Now()}
		time.Sleep(100 * 365 * 24 * time.Hour)
		if token.IsExpired() || token.ExpiresSoon(1<<62) {
			t.Error("a token without expiry is expired, or will be soon")
		}
		if got := (ampauth.Token{}).Age(); got != 0 {
			t.Errorf("Age = %v without ObtainedAt, want 0", got)
		}
	})
}
