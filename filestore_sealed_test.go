package ampauth_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// directoryShows returns which canaries any file below dir shows.
func directoryShows(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = append(found, leaks(entry.Name()+" "+string(content))...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// padding is a Sealer that makes much of little.
type padding struct{ to int }

func (p padding) Seal(plain, _ []byte) ([]byte, error) {
	return append(make([]byte, p.to), plain...), nil
}
func (p padding) Open(sealed, _ []byte) ([]byte, error) { return bytes.Clone(sealed[p.to:]), nil }

func TestSealedTokenThatIsTooLargeToLoadIsNotSaved(t *testing.T) {
	s := newFileStore(t)
	saveCanary(t, s)
	s.Sealer = padding{17 << 10}
	err := s.Save(t.Context(), recordKey(t), ampauth.Token{Value: ampauth.SecretFromString(canaryRenewedToken), ObtainedAt: time.Now()})
	wantStoreError(t, s, err, "the sealed token is larger than 16 KiB")
	s.Sealer = nil
	wantCanary(t, s)
}

func TestSealedFileShowsNoToken(t *testing.T) {
	s := newFileStore(t)
	saveCanary(t, s)
	if directoryShows(t, s.Dir) == nil {
		t.Fatal("the search finds nothing in clear text, so it proves nothing")
	}
	s = newFileStore(t)
	s.Sealer = newSealer(t, sealKey)
	for range 3 {
		saveCanary(t, s)
		if found := directoryShows(t, s.Dir); found != nil {
			t.Errorf("the directory shows %v", found)
		}
	}
	wantCanary(t, s)
	content, err := os.ReadFile(tokenPath(t, s))
	if err != nil || !bytes.HasPrefix(content, []byte("ampauth-sealed 1\n")) {
		t.Errorf("the file does not say that it is sealed (error %v)", err)
	}
}

func TestSealedFileIsAMissUnlessTheRightSealerOpensIt(t *testing.T) {
	const changed = "the token was changed, or sealed with another key or for another account"
	for _, test := range []struct {
		name   string
		change func(t *testing.T, s *ampauth.FileStore)
		reason string
	}{
		{"no Sealer", func(_ *testing.T, s *ampauth.FileStore) { s.Sealer = nil }, "the token is sealed, and there is no Sealer"},
		{"in clear", func(t *testing.T, s *ampauth.FileStore) { saveCanary(t, &ampauth.FileStore{Dir: s.Dir}) }, "the token is not sealed, and there is a Sealer"},
		{"another key", func(t *testing.T, s *ampauth.FileStore) { s.Sealer = newSealer(t, strings.Repeat("K", 32)) }, changed},
		{"another account", func(t *testing.T, s *ampauth.FileStore) {
			other := recordKeyOf(t, "https://amp.test/api", "another")
			if err := s.Save(t.Context(), other, canaryTokenValue()); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(s.Dir, other.String()+".token"), tokenPath(t, s)); err != nil {
				t.Fatal(err)
			}
		}, changed},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newFileStore(t)
			s.Sealer = newSealer(t, sealKey)
			saveCanary(t, s)
			test.change(t, s)
			wantNoToken(t, s, test.reason)
			wantHealed(t, s)
		})
	}
	s := newFileStore(t)
	s.Sealer = newSealer(t, sealKey)
	saveCanary(t, s)
	whole, err := os.ReadFile(tokenPath(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1
		for _, content := range [][]byte{flipped, whole[:i]} {
			if err := os.WriteFile(tokenPath(t, s), content, 0o600); err != nil {
				t.Fatal(err)
			}
			reason := changed
			if len(content) < len("ampauth-sealed 1\n") || !bytes.HasPrefix(content, []byte("ampauth-sealed 1\n")) {
				reason = "the token is not sealed, and there is a Sealer"
			}
			wantNoToken(t, s, reason)
		}
	}
}

// brokenSealer fails, and says what it should not.
type brokenSealer struct{}

var errBrokenSealer = errors.New("no key")

func (brokenSealer) Seal(plain, _ []byte) ([]byte, error) {
	return nil, errors.Join(errBrokenSealer, errors.New(string(plain)))
}
func (brokenSealer) Open([]byte, []byte) ([]byte, error) { return nil, errors.New(canaryPassword) }

func TestFailureOfASealerIsToldWithoutItsWords(t *testing.T) {
	s := newFileStore(t)
	s.Sealer = newSealer(t, sealKey)
	saveCanary(t, s)
	s.Sealer = brokenSealer{}
	err := s.Save(t.Context(), recordKey(t), canaryTokenValue())
	wantStoreError(t, s, err, "the token cannot be sealed")
	if !errors.Is(err, errBrokenSealer) {
		t.Error("the cause is not found any more")
	}
	wantNoToken(t, s, "the token was changed, or sealed with another key or for another account")
}
