package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
)

// A memoryStore is a store with a lock, as somebody would write it.
type memoryStore struct {
	mu     sync.Mutex // guards tokens, locks
	tokens map[ampauth.StoreKey]ampauth.Token
	locks  map[ampauth.StoreKey]chan struct{}
}

func (s *memoryStore) Load(_ context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[k]
	if !ok {
		return ampauth.Token{}, fmt.Errorf("memory: %w", ampauth.ErrNoToken)
	}
	return t, nil
}

func (s *memoryStore) Save(_ context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[k] = t
	return nil
}

func (s *memoryStore) DeleteIf(_ context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens[k].Value.Equal(rejected) {
		delete(s.tokens, k)
	}
	return nil
}

func (s *memoryStore) lockOf(k ampauth.StoreKey) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[k] == nil {
		s.locks[k] = make(chan struct{}, 1)
	}
	return s.locks[k]
}

func (s *memoryStore) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	lock := s.lockOf(k)
	select {
	case lock <- struct{}{}:
		return sync.OnceFunc(func() { <-lock }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *memoryStore) TryLock(_ context.Context, k ampauth.StoreKey) (func(), bool, error) {
	lock := s.lockOf(k)
	select {
	case lock <- struct{}{}:
		return sync.OnceFunc(func() { <-lock }), true, nil
	default:
		return nil, false, nil
	}
}

func newMemoryStore() *memoryStore {
	return &memoryStore{tokens: make(map[ampauth.StoreKey]ampauth.Token), locks: make(map[ampauth.StoreKey]chan struct{})}
}

// stored is the token that the store has for the fake's one user.
func (w *ampWorld) stored(store ampauth.TokenStore) (ampauth.Token, bool) {
	w.t.Helper()
	token, err := store.Load(w.t.Context(), recordKeyOf(w.t, w.url+"/api", "issuer"))
	return token, err == nil
}

// all asks many managers for a token at once.
func (w *ampWorld) all(managers []*ampauth.TokenManager) {
	w.t.Helper()
	var wg sync.WaitGroup
	for _, m := range managers {
		wg.Go(func() { w.token(m) })
	}
	wg.Wait()
}

// holdLock takes the lock of the fake's one user, as a process that hangs.
func (w *ampWorld) holdLock(store *memoryStore) (release func()) {
	w.t.Helper()
	release, err := store.Lock(w.t.Context(), recordKeyOf(w.t, w.url+"/api", "issuer"))
	if err != nil {
		w.t.Fatal(err)
	}
	return release
}

func storedIn(store ampauth.TokenStore) func(*ampauth.Config) {
	return func(cfg *ampauth.Config) { cfg.Store = store }
}

// A faultyStore does one thing wrong.
type faultyStore struct {
	*memoryStore
	load, save, deleteIf, lock, tryLock func(context.Context) error
}

func (s *faultyStore) TryLock(ctx context.Context, k ampauth.StoreKey) (func(), bool, error) {
	if err := fault(s.tryLock, ctx); err != nil {
		return nil, false, err
	}
	return s.memoryStore.TryLock(ctx, k)
}

func (s *faultyStore) Load(ctx context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	if err := fault(s.load, ctx); err != nil {
		return ampauth.Token{}, err
	}
	return s.memoryStore.Load(ctx, k)
}

func (s *faultyStore) Save(ctx context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	if err := fault(s.save, ctx); err != nil {
		return err
	}
	return s.memoryStore.Save(ctx, k, t)
}

func (s *faultyStore) DeleteIf(ctx context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	if err := fault(s.deleteIf, ctx); err != nil {
		return err
	}
	return s.memoryStore.DeleteIf(ctx, k, rejected)
}

func (s *faultyStore) Lock(ctx context.Context, k ampauth.StoreKey) (func(), error) {
	if err := fault(s.lock, ctx); err != nil {
		return nil, err
	}
	return s.memoryStore.Lock(ctx, k)
}

func fault(f func(context.Context) error, ctx context.Context) error {
	if f == nil {
		return nil
	}
	return f(ctx)
}

// canaryUser is no secret: where a dump shows it, the dump got that far.
const canaryUser = "the-visible-issuer"

func canaryTokenValue() ampauth.Token {
	return ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
}

// recordKey is the key of the account that the canary tokens belong to.
func recordKey(t testing.TB) ampauth.StoreKey {
	return recordKeyOf(t, "https://amp.test/api", canaryUser)
}

func recordKeyOf(t testing.TB, baseURL, username string) ampauth.StoreKey {
	t.Helper()
	k, err := ampauth.NewStoreKey(baseURL, username)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encoded(t testing.TB, k ampauth.StoreKey, token ampauth.Token) []byte {
	t.Helper()
	record, err := ampauth.EncodeToken(k, token)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// wantMiss fails unless err Is ErrNoToken, says why, and shows nothing else.
func wantMiss(t *testing.T, err error, reason string) {
	t.Helper()
	if !errors.Is(err, ampauth.ErrNoToken) {
		t.Fatalf("got the error %v, want one that Is ErrNoToken", err)
	}
	want := "ampauth: no stored token"
	if reason != "" {
		want += ": " + reason
	}
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if found := leaks(everythingErrorsSay(err)); found != nil {
		t.Errorf("the error shows %v", found)
	}
}

func newFileStore(t *testing.T) *ampauth.FileStore {
	return &ampauth.FileStore{Dir: filepath.Join(t.TempDir(), "tokens")}
}

// tokenPath is where the store keeps the token of recordKey.
func tokenPath(t testing.TB, s *ampauth.FileStore) string {
	return filepath.Join(s.Dir, recordKey(t).String()+".token")
}

func saveCanary(t *testing.T, s *ampauth.FileStore) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // so that a Save that waits for itself is found
	defer cancel()
	if err := s.Save(ctx, recordKey(t), canaryTokenValue()); err != nil {
		t.Fatalf("Save: %v", err)
	}
}

// wantCanary fails unless the canary token is loaded.
func wantCanary(t *testing.T, s *ampauth.FileStore) {
	t.Helper()
	token, err := s.Load(t.Context(), recordKey(t))
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if !token.Value.Equal(ampauth.SecretFromString(canaryToken)) {
		t.Error("Load returned another token")
	}
}

func wantNoToken(t *testing.T, s *ampauth.FileStore, reason string) {
	t.Helper()
	_, err := s.Load(t.Context(), recordKey(t))
	wantMiss(t, err, placed(t, s, reason))
}

// wantHealed fails unless the next Save puts a good file in place of what is there.
func wantHealed(t *testing.T, s *ampauth.FileStore) {
	t.Helper()
	saveCanary(t, s)
	wantCanary(t, s)
	wantNoLeftovers(t, s)
}

// wantNoLeftovers fails if there is more than a token and its locks.
func wantNoLeftovers(t *testing.T, s *ampauth.FileStore) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !slices.Contains([]string{".token", ".lock", ".write"}, filepath.Ext(entry.Name())) {
			t.Errorf("%s is left", entry.Name())
		}
	}
}

// placed is what a store says, with its own paths for DIR and KEY.
func placed(t testing.TB, s *ampauth.FileStore, text string) string {
	return strings.NewReplacer("DIR", filepath.Clean(s.Dir), "KEY", recordKey(t).String()).Replace(text)
}

// wantStoreError fails unless err is of kind ErrStore, says exactly this, with DIR for the
// directory and KEY for the name of the file, and shows no secret.
func wantStoreError(t *testing.T, s *ampauth.FileStore, err error, want string) {
	t.Helper()
	if e, ok := errors.AsType[*ampauth.Error](err); !ok || e.Op != "store" || !errors.Is(err, ampauth.ErrStore) || errors.Is(err, ampauth.ErrNoToken) {
		t.Fatalf("got the error %v, want an *Error of kind ErrStore", err)
	}
	if want := "ampauth: token store: " + placed(t, s, want); err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if found := leaks(everythingErrorsSay(err)); found != nil {
		t.Errorf("the error shows %v", found)
	}
}

// sealKey is a key of the right length, which holds a canary.
var sealKey = canaryPassword[:32]

func newSealer(t testing.TB, key string) ampauth.Sealer {
	t.Helper()
	sealer, err := ampauth.NewAESGCMSealer(ampauth.SecretFromString(key))
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}
