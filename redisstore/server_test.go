//go:build unix

package redisstore_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fleet"
	"github.com/ampauth/ampauth/redisstore"
	"github.com/redis/go-redis/v9"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	fleet.Main(newStore)
	limitedMain()
	os.Exit(m.Run())
}

const lease = 2 * time.Second

// newStore is what each process has.
func newStore(address string) ampauth.TokenStore {
	return &redisstore.Store{Client: redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true}), Lease: lease}
}

// A server is a redis-server on loopback, in a directory of its own.
type server struct {
	t         testing.TB
	path, dir string
	port      int
	arguments []string
	cmd       *exec.Cmd
	client    *redis.Client
	replica   *server
}

// newServer starts one. Where there is none to start, the test is skipped, unless
// AMPAUTH_SERVERS=required.
func newServer(t testing.TB, arguments ...string) *server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		say := t.Skip
		if os.Getenv("AMPAUTH_SERVERS") == "required" {
			say = t.Fatal
		}
		say("there is no redis-server in PATH: install the package redis-server of Debian or Ubuntu, or redis of Homebrew")
	}
	s := &server{t: t, path: path, dir: t.TempDir(), port: freePort(t), arguments: arguments}
	s.client = redis.NewClient(&redis.Options{Addr: s.Address()})
	t.Cleanup(func() {
		_ = s.client.Close()
		s.Kill()
	})
	s.start()
	return s
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.path, append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir,
		"--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"}, s.arguments...)...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.await("it answers", func(ctx context.Context) bool { return s.client.Ping(ctx).Err() == nil })
}

func (s *server) await(what string, holds func(context.Context) bool) {
	s.t.Helper()
	for began := time.Now(); !holds(context.Background()); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			s.t.Fatalf("redis-server: not after 30 s: %s", what)
		}
	}
}

func (s *server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

func (s *server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

func (s *server) Restart() { s.start() }

func (s *server) Stop()     { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *server) Continue() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *server) Fork() {
	s.t.Helper()
	s.replica = newServer(s.t, "--replicaof", "127.0.0.1", strconv.Itoa(s.port))
	s.await("the replica has everything", func(ctx context.Context) bool {
		info, err := s.replica.client.Info(ctx, "replication").Result()
		keys, _ := s.replica.client.DBSize(ctx).Result()
		return err == nil && strings.Contains(info, "master_link_status:up") && keys > 0
	})
	if err := s.replica.client.Do(context.Background(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		s.t.Fatal(err)
	}
}

// Promote puts what the replica has where the clients look for it, as a new address would.
func (s *server) Promote() {
	s.t.Helper()
	if err := s.replica.client.Save(context.Background()).Err(); err != nil {
		s.t.Fatal(err)
	}
	s.Kill()
	if err := os.Rename(filepath.Join(s.replica.dir, "dump.rdb"), filepath.Join(s.dir, "dump.rdb")); err != nil {
		s.t.Fatal(err)
	}
	s.start()
	if keys, err := s.client.DBSize(context.Background()).Result(); err != nil || keys == 0 {
		s.t.Fatalf("%d keys after the failover, error %v", keys, err)
	}
}

// Calls are the commands that a Store makes. Those inside of scripts are among them.
func (s *server) Calls() (n int) {
	s.t.Helper()
	stats, err := s.client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		var calls int
		name, numbers, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscanf(numbers, "calls=%d", &calls); err != nil {
			continue
		}
		switch strings.TrimPrefix(name, "cmdstat_") {
		case "info", "ping", "hello", "client|setinfo", "client|maint_notifications", "replconf":
		default:
			n += calls
		}
	}
	return n
}
