//go:build unix

package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fleet"
	"github.com/ampauth/ampauth/pgstore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func TestMain(m *testing.M) {
	fleet.Main(newStore())
	code := m.Run()
	for _, s := range installed.idle {
		s.end()
	}
	if dir := installed.dir; dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

const lease = 2 * time.Second

// newStore makes what each client of a process has: a Store over the pool of its process.
func newStore() func(address string) ampauth.TokenStore {
	var mu sync.Mutex // guards pools
	pools := make(map[string]*pgxpool.Pool)
	return func(address string) ampauth.TokenStore {
		mu.Lock()
		defer mu.Unlock()
		if pools[address] == nil {
			pool, err := pgxpool.New(context.Background(), address)
			if err != nil {
				panic(err)
			}
			pools[address] = pool
		}
		return &pgstore.Store{Pool: pools[address], Lease: lease}
	}
}

// An installation is the programs of PostgreSQL, and a data directory that each server gets
// a copy of, with the table in it.
type installation struct {
	once sync.Once
	dir  string // for all servers; empty if there is no PostgreSQL
	bin  string
	as   *syscall.Credential // who the server runs as, since it does not as root
	err  error

	mu   sync.Mutex // guards idle
	idle []*server  // that a test has left as they were
}

var installed installation

const notFound = "there is no PostgreSQL server in PATH, /usr/lib/postgresql or Homebrew's directories: " +
	"install the package postgresql of Debian or Ubuntu, or postgresql of Homebrew"

func (i *installation) prepare() {
	i.once.Do(func() { i.err = i.make() })
}

func (i *installation) make() error {
	i.bin = programs()
	if i.bin == "" {
		return errors.New(notFound)
	}
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		i.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	var err error
	if i.dir, err = os.MkdirTemp("", "pgstore"); err != nil { // not t.TempDir, whose names are too long for a socket
		return err
	}
	if err := i.give(i.dir); err != nil {
		return err
	}
	template := filepath.Join(i.dir, "template")
	if err := i.run(filepath.Join(i.bin, "initdb"), "-D", template, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	schema, err := os.ReadFile("schema.sql")
	if err != nil {
		return err
	}
	single := i.command(filepath.Join(i.bin, "postgres"), "--single", "-j", "-D", template, "postgres")
	single.Stdin = strings.NewReader(string(schema) + "\n\n")
	if out, err := single.CombinedOutput(); err != nil || strings.Contains(string(out), "ERROR") {
		return fmt.Errorf("schema.sql: %w: %s", err, out)
	}
	return nil
}

// programs is the directory of a server's programs; empty if there is none.
func programs() (found string) {
	initdb, _ := exec.LookPath("initdb")
	for _, pattern := range []string{initdb, "/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb", "/opt/homebrew/opt/postgresql*/bin/initdb", "/usr/local/opt/postgresql*/bin/initdb"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if path, err := filepath.EvalSymlinks(path); err == nil {
				found = filepath.Dir(path)
			}
		}
		if found != "" {
			return found
		}
	}
	return ""
}

func (i *installation) give(path string) error {
	if i.as == nil {
		return nil
	}
	return os.Chown(path, int(i.as.Uid), int(i.as.Gid))
}

func (i *installation) command(path string, arguments ...string) *exec.Cmd {
	cmd := exec.Command(path, arguments...)
	cmd.Dir = "/"
	if i.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: i.as}
	}
	return cmd
}

func (i *installation) run(path string, arguments ...string) error {
	if out, err := i.command(path, arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, out)
	}
	return nil
}

// A server is a PostgreSQL that listens on a socket in a directory of its own.
type server struct {
	t       testing.TB
	dir     string
	cmd     *exec.Cmd
	log     *os.File
	admin   *pgx.Conn
	pids    []int // of those that were stopped
	changed bool  // so that it is for one test alone
	replica string
}

// newServer starts one with an empty table. Where there is none to start, the test is
// skipped, unless AMPAUTH_SERVERS=required.
func newServer(t testing.TB) *server {
	t.Helper()
	installed.prepare()
	switch {
	case installed.err == nil:
	case installed.err.Error() == notFound && os.Getenv("AMPAUTH_SERVERS") != "required":
		t.Skip(notFound)
	default:
		t.Fatal(installed.err)
	}
	installed.mu.Lock()
	defer installed.mu.Unlock()
	var s *server
	if n := len(installed.idle); n > 0 {
		s, installed.idle = installed.idle[n-1], installed.idle[:n-1]
		s.t = t
	} else {
		dir, err := os.MkdirTemp(installed.dir, "")
		if err != nil {
			t.Fatal(err)
		}
		s = &server{t: t, dir: dir}
		s.must(installed.give(dir))
		s.log, err = os.Create(filepath.Join(dir, "log"))
		s.must(err)
		s.Restart()
	}
	t.Cleanup(func() {
		if s.changed || t.Failed() {
			s.end()
			return
		}
		s.sql("TRUNCATE ampauth_tokens")
		s.changed = false
		installed.mu.Lock()
		defer installed.mu.Unlock()
		installed.idle = append(installed.idle, s)
	})
	return s
}

// end ends it for good.
func (s *server) end() {
	s.Kill()
	_ = s.log.Close()
	_ = os.RemoveAll(s.dir)
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// Address is a connection string.
func (s *server) Address() string { return s.addressOf("postgres", "store") }

func (s *server) addressOf(user, application string) string {
	return fmt.Sprintf("host=%s user=%s dbname=postgres application_name=%s", s.dir, user, application)
}

// start starts the server over what is in its directory.
func (s *server) start() {
	s.t.Helper()
	s.cmd = installed.command(filepath.Join(installed.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "max_connections=400", "-c", "shared_buffers=16MB", "-c", "log_statement=all", "-c", "log_line_prefix=<%a> ", "-c", "wal_level=replica", "-c", "max_wal_senders=4")
	s.cmd.Stderr = s.log
	s.must(s.cmd.Start())
	s.await("it answers", func(ctx context.Context) (err error) {
		s.admin, err = pgx.Connect(ctx, s.addressOf("postgres", "admin"))
		return err
	})
}

func (s *server) await(what string, try func(context.Context) error) {
	s.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := try(context.Background())
		if err == nil {
			return
		}
		if time.Since(began) > 30*time.Second {
			s.t.Fatalf("postgres: not after 30 s: %s: %v", what, err)
		}
	}
}

// Restart starts it over the table as it was at first.
func (s *server) Restart() {
	s.t.Helper()
	_ = os.RemoveAll(s.data())
	s.must(installed.run("/bin/cp", "-a", filepath.Join(installed.dir, "template"), s.data()))
	s.start()
}

// pool is one of the test's own.
func (s *server) pool(user string, change func(*pgxpool.Config)) *pgxpool.Pool {
	s.t.Helper()
	config, err := pgxpool.ParseConfig(s.addressOf(user, "test"))
	s.must(err)
	if change != nil {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	s.must(err)
	s.t.Cleanup(pool.Close)
	return pool
}

// sql runs statements as superuser.
func (s *server) sql(text string, args ...any) {
	s.t.Helper()
	s.changed = true
	_, err := s.admin.Exec(context.Background(), text, args...)
	s.must(err)
}

// freeze stops all of its processes: the first at first, so that there are no more.
func (s *server) freeze() {
	s.t.Helper()
	s.changed = true
	s.pids = []int{s.cmd.Process.Pid}
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
	rows, _ := s.admin.Query(context.Background(), "SELECT pid FROM pg_stat_activity ORDER BY pid = pg_backend_pid()")
	pids, _ := pgx.CollectRows(rows, pgx.RowTo[int])
	s.pids = append(s.pids, pids...)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

func (s *server) Stop() { s.freeze() }

func (s *server) Continue() {
	for _, pid := range slices.Backward(s.pids) {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	s.pids = nil
}

// Kill ends it as a power failure would.
func (s *server) Kill() {
	if s.cmd == nil {
		return
	}
	if s.pids == nil {
		s.freeze()
	}
	for _, pid := range s.pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.pids = nil
	_ = s.cmd.Wait()
	s.cmd = nil
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.admin.Close(ctx)
	for _, left := range []string{".s.PGSQL.5432", ".s.PGSQL.5432.lock"} {
		_ = os.Remove(filepath.Join(s.dir, left))
	}
}

// Fork makes a standby.
func (s *server) Fork() {
	s.t.Helper()
	s.changed = true
	s.replica = filepath.Join(s.dir, "replica")
	s.must(installed.run(filepath.Join(installed.bin, "pg_basebackup"), "-D", s.replica, "-h", s.dir, "-U", "postgres", "-R", "-c", "fast", "--no-sync"))
}

// Promote starts the standby where the clients look for it, and makes it the primary.
func (s *server) Promote() {
	s.t.Helper()
	s.Kill()
	_ = os.RemoveAll(s.data())
	s.must(os.Rename(s.replica, s.data()))
	s.start()
	s.sql("SELECT pg_promote()")
	var rows int
	s.must(s.admin.QueryRow(context.Background(), "SELECT count(*) FROM ampauth_tokens WHERE record IS NOT NULL").Scan(&rows))
	if rows == 0 {
		s.t.Fatal("there is no token after the failover")
	}
}

// Calls are the statements of stores that its log has.
func (s *server) Calls() int {
	s.t.Helper()
	return len(s.statements("store"))
}

// statements are those of an application, but for signs of life.
func (s *server) statements(application string) (texts []string) {
	s.t.Helper()
	log, err := os.ReadFile(s.log.Name())
	s.must(err)
	for line := range strings.Lines(string(log)) {
		rest, ours := strings.CutPrefix(line, "<"+application+"> LOG:  ")
		kind, text, _ := strings.Cut(rest, ": ")
		if ours && (kind == "statement" || strings.HasPrefix(kind, "execute")) && !strings.HasPrefix(text, "-- ping") {
			texts = append(texts, strings.TrimSpace(text))
		}
	}
	return texts
}
