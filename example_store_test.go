package ampauth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"sync"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// With a store: the token survives restarts, and processes of one user on one
// machine share it. ConfigFromEnv does the same for AMP_TOKEN_DIR.
func ExampleFileStore() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	dir, err := os.MkdirTemp("", "amp-tokens") // /var/lib/issuer/amp-tokens
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	cfg := amp.Config()
	cfg.Store = &ampauth.FileStore{Dir: dir}
	for range 2 { // starts of the program
		client, err := ampauth.NewClient(cfg)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Get(amp.URL + "/assets")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		client.Close() // the stored token stays; client.Tokens.Clear removes it
	}
	fmt.Println(amp.Count("POST /user/obtain_token"), "login")
	// Output: 1 login
}

// A sealed store: whoever finds the file has no token. The key comes from where the file
// is not, such as a key management service.
func ExampleNewAESGCMSealer() {
	dir, err := os.MkdirTemp("", "amp-tokens")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	key := make([]byte, 32)
	rand.Read(key)

	secret := ampauth.NewSecret(key) // wipes key
	sealer, err := ampauth.NewAESGCMSealer(secret)
	if err != nil {
		log.Fatal(err)
	}
	secret.Destroy() // the Sealer has its own copy
	store := &ampauth.FileStore{Dir: dir, Sealer: sealer}

	ctx := context.Background()
	account, err := ampauth.NewStoreKey("https://amp-test.blockstream.com/api", "issuer")
	if err != nil {
		log.Fatal(err)
	}
	token := ampauth.Token{Value: ampauth.SecretFromString("0123456789abcdef")}
	if err := store.Save(ctx, account, token); err != nil {
		log.Fatal(err)
	}
	loaded, err := store.Load(ctx, account)
	fmt.Println(loaded.Value.Equal(token.Value), err)
	_, err = (&ampauth.FileStore{Dir: dir}).Load(ctx, account) // without the key
	fmt.Println(err)
	// Output:
	// true <nil>
	// ampauth: no stored token: the token is sealed, and there is no Sealer
}

// tableStore is a TokenStore of one's own: records of EncodeToken in a table, here a map.
// storetest.Run says whether it keeps to the contract.
type tableStore struct {
	mu      sync.Mutex // guards records
	records map[string][]byte
}

func (s *tableStore) Load(_ context.Context, k ampauth.StoreKey) (ampauth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.records[k.String()]
	if !ok {
		return ampauth.Token{}, ampauth.ErrNoToken
	}
	return ampauth.DecodeToken(k, record) // checks that it is the record of k, and not ended
}

func (s *tableStore) Save(_ context.Context, k ampauth.StoreKey, t ampauth.Token) error {
	record, err := ampauth.EncodeToken(k, t)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[k.String()] = record
	return nil
}

// DeleteIf leaves a token that somebody else has stored meanwhile.
func (s *tableStore) DeleteIf(_ context.Context, k ampauth.StoreKey, rejected ampauth.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.records[k.String()]
	if !ok {
		return nil
	}
	if stored, err := ampauth.DecodeToken(k, record); err == nil && stored.Value.Equal(rejected) {
		delete(s.records, k.String())
	}
	return nil
}

// Two clients with one store of one's own make one login.
func ExampleTokenStore() {
	t := new(exampleT) // in a test, its own t
	defer t.end()
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})

	cfg := amp.Config()
	cfg.Store = &tableStore{records: make(map[string][]byte)}
	for range 2 {
		client, err := ampauth.NewClient(cfg)
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		resp, err := client.Get(amp.URL + "/assets")
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}
	fmt.Println(amp.Count("POST /user/obtain_token"), "login")
	// Output: 1 login
}
