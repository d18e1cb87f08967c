package ampauth

import (
	"errors"
	"time"
)

// A Token is a credential with the times that belong to it. It shows its value
// to nobody (see [Secret]).
type Token struct {
	Value      Secret
	ExpiresAt  time.Time // zero: no end
	ObtainedAt time.Time
}

// IsExpired reports whether the token's time is over.
func (t Token) IsExpired() bool { return t.ExpiresSoon(0) }

// ExpiresSoon reports whether the token's time is over within threshold.
func (t Token) ExpiresSoon(threshold time.Duration) bool {
	return !t.ExpiresAt.IsZero() && time.Until(t.ExpiresAt) <= threshold
}

// Age returns the time since the token was obtained, 0 if that is not known.
func (t Token) Age() time.Duration {
	if t.ObtainedAt.IsZero() {
		return 0
	}
	return time.Since(t.ObtainedAt)
}

// A TokenInfo describes a token without holding it.
type TokenInfo struct {
	ExpiresAt   time.Time     // zero: no end
	ObtainedAt  time.Time     // when the answer with the token arrived
	ExpiresIn   time.Duration // time left; negative once expired, 0 without end
	Age         time.Duration
	IsExpired   bool
	ExpiresSoon bool // a refresh is due, or under way
}

// userOf returns the user whose token it is, and the number that a manager gave that
// user: "" and 0 if no manager said.
func userOf(token Token) (name string, number uint32) {
	if token.Value.ref == nil {
		return "", 0
	}
	return token.Value.ref().user, token.Value.ref().number
}

var errOtherUser = errors.New("the credentials are another user's by now, and the request was not sent again as that user")
