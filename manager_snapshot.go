package ampauth

import (
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/pace"
	"github.com/ampauth/ampauth/internal/renewal"
)

// A snapshot is a token with everything that a reader needs to judge it, in Unix
// nanoseconds of the wall clock: a machine that slept must notice. It is immutable.
type snapshot struct {
	token                           Token
	obtainedAt, refreshAt, expireAt int64
	life                            renewal.Life
	id                              renewal.ID
	generation                      int  // see renewal.Machine
	loggedIn                        bool // it came of a login, not of a refresh or from the store
}

// fresh reports whether the token is due neither by its end nor because the clock
// was set back to before it was obtained.
func (s *snapshot) fresh(now int64) bool { return s.obtainedAt <= now && now < s.refreshAt }

// newSnapshot sets the times of a token that arrived now.
func (m *TokenManager) newSnapshot(value Secret) *snapshot {
	return m.snapshotOf(Token{Value: value, ObtainedAt: time.Now()})
}

// snapshotOf sets the times of a token that was obtained at a known time. It ends
// with its lifetime, or at an earlier end of its own.
func (m *TokenManager) snapshotOf(token Token) *snapshot {
	token.ObtainedAt = token.ObtainedAt.Round(0) // wall clock only
	s := &snapshot{
		token:      token,
		obtainedAt: token.ObtainedAt.UnixNano(),
		refreshAt:  math.MaxInt64,
		expireAt:   math.MaxInt64,
	}
	s.life.Obtained = token.ObtainedAt
	life, assumed := m.account.lifetime, m.account.assumed
	if !token.ExpiresAt.IsZero() {
		if own := token.ExpiresAt.Sub(token.ObtainedAt); life <= 0 || own < life {
			life, assumed = own, assumed && own > life-time.Second // stores keep seconds
		}
	}
	if life > 0 {
		s.token.ExpiresAt = token.ObtainedAt.Add(life)
		s.expireAt = int64(pace.Add(time.Duration(s.obtainedAt), life))
		s.refreshAt = s.expireAt - int64(refreshLead(life, m.account.window))
		s.life = renewal.Life{Obtained: token.ObtainedAt, Due: time.Unix(0, s.refreshAt), End: time.Unix(0, s.expireAt), Assumed: assumed}
	}
	return s
}

// refreshLead draws how long before the end of its life a token is refreshed: at
// least the window, at most half as much again, so that a fleet does not refresh
// at once, and never more than half the life. A life too short for the window
// is refreshed between half and five eighths of it.
func refreshLead(life, window time.Duration) time.Duration {
	if window < 0 {
		return 0
	}
	window = min(window, life)
	least, most := window, pace.Add(window, window/2)
	if half := life / 2; most > half {
		most = half
		if least > half {
			least = half - half/4
		}
	}
	if most <= least {
		return least
	}
	return least + rand.N(most-least)
}

// maxIssued bounds how many tokens are known again. A generated client may hold one
// for a while, but not for many logins.
const maxIssued = 32

// issuedTokens knows the tokens again that a manager gave out, by their hashes.
type issuedTokens struct {
	tokens []issuedToken // at most maxIssued, the oldest first
	last   renewal.ID
}

type issuedToken struct {
	hash [sha256.Size]byte
	id   renewal.ID
}

// of returns the ID of a token, 0 if it is not known.
func (i *issuedTokens) of(token []byte) renewal.ID {
	hash := sha256.Sum256(token)
	for _, known := range i.tokens {
		if known.hash == hash {
			return known.id
		}
	}
	return 0
}

// idOf returns the ID of a token, 0 if it is not known.
func (i *issuedTokens) idOf(value Secret) (id renewal.ID) {
	_ = value.Expose(func(b []byte) error { id = i.of(b); return nil })
	return id
}

// note returns the ID of a token, which is known from then on.
func (i *issuedTokens) note(value Secret) (id renewal.ID) {
	_ = value.Expose(func(b []byte) error {
		if id = i.of(b); id == 0 {
			i.last++
			id = i.last
		} else {
			i.tokens = slices.DeleteFunc(i.tokens, func(known issuedToken) bool { return known.id == id })
		}
		i.tokens = append(i.tokens[max(len(i.tokens)-maxIssued+1, 0):], issuedToken{sha256.Sum256(b), id})
		return nil
	})
	return id
}

// issued implements source: it reports whether the value of an Authorization field, with
// or without a scheme word, is a token of this manager's: the current one, or one that it
// has replaced.
func (m *TokenManager) issued(value string) bool {
	token := value[strings.LastIndexByte(value, ' ')+1:]
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.of([]byte(token)) != 0
}
