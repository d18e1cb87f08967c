//go:build unix

package ampauth_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestModesDoNotDependOnTheUmask(t *testing.T) {
	masks := []string{"0", "077", "0777"}
	if runtime.GOOS != "linux" {
		masks = masks[:2] // the last would need a change of mode by name
	}
	for _, mask := range masks {
		runFileStoreChild(t, fileStoreChild(t, "umask "+mask, filepath.Join(openDirectory(t), "a", "b")))
	}
}

func TestReadOnlyDirectoryKeepsTheOldToken(t *testing.T) {
	runFileStoreChild(t, fileStoreChild(t, "read-only", filepath.Join(openDirectory(t), "tokens")))
}

func TestFileSizeLimitKeepsTheOldToken(t *testing.T) {
	runFileStoreChild(t, fileStoreChild(t, "small files", newFileStore(t).Dir))
}

func TestLackOfFileDescriptorsKeepsTheOldToken(t *testing.T) {
	runFileStoreChild(t, fileStoreChild(t, "few files", newFileStore(t).Dir))
}

func TestWriterThatIsKilledAnywhereLeavesAWholeToken(t *testing.T) {
	const writers, kills = 4, 100
	for range writers {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			s, k, left := newFileStore(t), recordKey(t), 0
			for range kills {
				kill := startFileStoreChild(t, fileStoreChild(t, "saves", s.Dir))
				time.Sleep(rand.N(4 * time.Millisecond)) // where it dies is what varies
				kill()
				token, err := s.Load(t.Context(), k)
				if err != nil || !token.Value.Equal(killedToken(0).Value) && !token.Value.Equal(killedToken(1).Value) {
					t.Fatalf("Load returned another token, or the error %v", err)
				}
				temporary, err := filepath.Glob(filepath.Join(s.Dir, "*.tmp"))
				if left += len(temporary); err != nil || len(temporary) > 1 {
					t.Fatalf("%d temporary files, error %v", len(temporary), err)
				}
			}
			t.Logf("%d of %d left a temporary file", left, kills)
			wantHealed(t, s)
		})
	}
}

func TestHolderThatIsKilledFreesTheLock(t *testing.T) {
	s, k := newFileStore(t), recordKey(t)
	kill := startFileStoreChild(t, fileStoreChild(t, "holds", s.Dir))
	defer kill()
	if _, ok, err := s.TryLock(t.Context(), k); ok || err != nil {
		t.Fatalf("two processes have the lock: %t, error %v", ok, err)
	}
	lockFile := strings.TrimSuffix(tokenPath(t, s), "token") + "lock"
	before, err := os.Stat(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		unlock func()
		err    error
	}
	waiting := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		unlock, err := s.Lock(ctx, k)
		waiting <- result{unlock, err}
	}()
	select {
	case <-waiting:
		t.Fatal("two processes have the lock")
	case <-time.After(100 * time.Millisecond): // several polls
	}
	saveCanary(t, s) // does not wait for it
	kill()
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	defer got.unlock()
	if after, err := os.Stat(lockFile); err != nil || !os.SameFile(before, after) {
		t.Error("it is another lock file")
	}
}

func TestProcessesHaveTheLockOneAtATime(t *testing.T) {
	s := newFileStore(t)
	const processes = 4
	var all sync.WaitGroup
	for range processes {
		child := fileStoreChild(t, "counts", s.Dir)
		all.Go(func() { runFileStoreChild(t, child) })
	}
	for range countsEach {
		countUnderTheLock(t, s)
	}
	all.Wait()
	text, err := os.ReadFile(s.Dir + ".count")
	if want := strconv.Itoa((processes + 1) * countsEach); err != nil || string(text) != want {
		t.Errorf("counted %s, want %s (error %v)", text, want, err)
	}
}
