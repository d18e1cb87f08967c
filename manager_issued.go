package ampauth

import (
	"crypto/sha256"
	"slices"
	"strings"
)

// maxIssued bounds how many tokens are known again. A generated client may hold one
// for a while, but not for many logins.
const maxIssued = 32

// issuedTokens knows the tokens again that a manager gave out, by their hashes.
type issuedTokens struct {
	hashes [][sha256.Size]byte // at most maxIssued, the oldest first
}

func (i *issuedTokens) note(value Secret) {
	_ = value.Expose(func(b []byte) error {
		if hash := sha256.Sum256(b); !slices.Contains(i.hashes, hash) {
			i.hashes = append(i.hashes[max(len(i.hashes)-maxIssued+1, 0):], hash)
		}
		return nil
	})
}

// issued reports whether the value of an Authorization field, with or without a scheme
// word, is a token of this manager's: the current one, or one that it has replaced.
func (m *TokenManager) issued(value string) bool {
	token := value[strings.LastIndexByte(value, ' ')+1:]
	hash := sha256.Sum256([]byte(token))
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.known.hashes, hash)
}
