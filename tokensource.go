package ampauth

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
)

// A TokenSource yields the token to send with a request. It judges by itself whether that
// is worth sending: an [AuthTransport] asks it for each request and sends what it gets,
// also a Token that IsExpired, since the API has the last word. When that refuses it, a
// [Renewer] is asked for another, and without one the caller gets the refusal. (After a wait
// for the Limiter a token that has ended meanwhile is asked for once more.)
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

// A source is what the layers ask of a [TokenSource]. One of this package knows more than
// the exported methods tell.
type source interface {
	TokenSource
	// itself is the TokenSource, nil if there is none behind a pointer.
	itself() TokenSource
	// home is where its tokens go, and the scheme word before them; nil and "" if it does not know.
	home() (*origin.Origin, string)
	// issued reports whether the value of an Authorization field is a token of its own.
	issued(value string) bool

	// ready returns a token that nobody has to wait for.
	ready() (Token, bool)
	// accepted says that the API accepted a token that was sent with a request.
	accepted(token Token, with *http.Request)
	// renewFor is a Renew of a token that was sent with a request, and renewSoon one that
	// nobody waits for.
	renewFor(ctx context.Context, rejected Token, with *http.Request) (Token, error)
	renewSoon(rejected Token, with *http.Request)
}

// sourceOf returns s as a source. A struct that embeds one of this package has its
// methods, but a Token of its own, and so is somebody else's.
func sourceOf(s TokenSource) source {
	if own, ok := s.(source); ok && own.itself() == s {
		return own
	}
	return &foreignSource{of: s}
}

// StaticTokenSource returns a source that always yields the same token, which
// does not end and cannot be renewed.
func StaticTokenSource(value Secret) TokenSource { return staticSource{Token{Value: value}} }

type staticSource struct{ token Token }

// Token implements TokenSource.
func (s staticSource) Token(context.Context) (Token, error) {
	if s.token.Value.IsZero() {
		return Token{}, noToken(errors.New("the StaticTokenSource is empty"))
	}
	return s.token, nil
}

// A foreignSource is any other TokenSource. It may panic.
type foreignSource struct {
	of       TokenSource
	renewing atomic.Bool // a renewal is under way that nobody waits for
}

func (s *foreignSource) itself() TokenSource            { return s.of }
func (s *foreignSource) home() (*origin.Origin, string) { return nil, "" }
func (s *foreignSource) issued(string) bool             { return false }
func (s *foreignSource) accepted(Token, *http.Request)  {}

func (s *foreignSource) ready() (Token, bool) {
	static, ok := s.of.(staticSource)
	return static.token, ok && !static.token.Value.IsZero()
}

// Token implements TokenSource.
func (s *foreignSource) Token(ctx context.Context) (token Token, err error) {
	defer recovered("TokenSource", &err)
	return s.of.Token(ctx)
}

func (s *foreignSource) renewFor(ctx context.Context, rejected Token, _ *http.Request) (token Token, err error) {
	renewer, ok := s.of.(Renewer)
	if !ok {
		return Token{}, noToken(errors.New("the TokenSource cannot renew tokens"))
	}
	defer recovered("Renewer", &err)
	return renewer.Renew(ctx, rejected)
}

// renewTime bounds a renewal that nobody waits for.
const renewTime = 30 * time.Second

func (s *foreignSource) renewSoon(rejected Token, with *http.Request) {
	if _, ok := s.of.(Renewer); !ok || !s.renewing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.renewing.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), renewTime)
		defer cancel()
		_, _ = s.renewFor(ctx, rejected, with)
	}()
}

// noToken is the error of a request that could not get a token.
func noToken(cause error) *Error {
	return &Error{Op: "obtain", Kind: ErrObtainFailed, Outcome: NotSent, Err: cause}
}
