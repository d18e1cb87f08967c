package ampauth

import (
	"context"
	"errors"
	"time"
)

// A TokenSource yields the token to send with a request.
type TokenSource interface {
	// Token returns a token that is worth sending now. It must be safe for
	// concurrent use and give up when ctx ends.
	Token(ctx context.Context) (Token, error)
}

// A Renewer is a [TokenSource] that can replace a token which the API refused.
type Renewer interface {
	// Renew returns a token other than rejected, or an error. It must compare
	// rejected with what it holds, so that a late refusal of an old token does
	// not throw a newer one away. It must be safe for concurrent use.
	Renew(ctx context.Context, rejected Token) (Token, error)
}

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

// StaticTokenSource returns a source that always yields the same token, which
// does not end and cannot be renewed.
func StaticTokenSource(value Secret) TokenSource { return staticTokenSource{Token{Value: value}} }

type staticTokenSource struct{ token Token }

func (s staticTokenSource) Token(context.Context) (Token, error) {
	if s.token.Value.IsZero() {
		return Token{}, noToken(errors.New("the StaticTokenSource is empty"))
	}
	return s.token, nil
}

// noToken is the error of a request that could not get a token.
func noToken(cause error) *Error {
	return &Error{Op: "obtain", Kind: ErrObtainFailed, Outcome: NotSent, Err: cause}
}
