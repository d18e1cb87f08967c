//go:build unix

package redisstore_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/redisstore"
	"github.com/ampauth/ampauth/storetest"
	"github.com/redis/go-redis/v9"
)

// documentedRule is the ACL SETUSER of docs/fleets.md.
func documentedRule(t *testing.T) (rule []any) {
	t.Helper()
	text, err := os.ReadFile("../docs/fleets.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 5 && words[0] == "ACL" && words[1] == "SETUSER" {
			for _, word := range words {
				rule = append(rule, word)
			}
			return rule
		}
	}
	t.Fatal("docs/fleets.md has no ACL SETUSER")
	return nil
}

// certificate writes one for 127.0.0.1, with its key, and returns a pool that trusts it.
func certificate(t *testing.T) (certificate, key string, pool *x509.CertPool) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		key:         {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return certificate, key, pool
}

// A user with the rights that docs/fleets.md names, over TLS, can do all that the contract
// asks for; and nothing else.
func TestDocumentedRightsAreEnoughOverTLS(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	port := freePort(t)
	s := newServer(t, "--tls-port", strconv.Itoa(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	ctx := context.Background()
	if err := s.client.Do(ctx, documentedRule(t)...).Err(); err != nil {
		t.Fatal(err)
	}
	options := &redis.Options{
		Addr: "127.0.0.1:" + strconv.Itoa(port), Username: "ampauth", Password: "PASSWORD",
		TLSConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"},
	}
	storetest.Run(t, func() ampauth.TokenStore {
		client := redis.NewClient(options)
		t.Cleanup(func() { _ = client.Close() })
		return leased{&redisstore.Store{Client: client}, "ampauth:"}
	})
	client := redis.NewClient(options)
	defer client.Close()
	for _, command := range [][]any{{"GET", "another"}, {"KEYS", "*"}, {"CONFIG", "GET", "*"}, {"FLUSHALL"}, {"PUBLISH", "another", "x"}} {
		if err := client.Do(ctx, command...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%v: %v", command, err)
		}
	}
}
