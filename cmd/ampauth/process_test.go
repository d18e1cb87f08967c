package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A running is a process of the command that goes on until it is told to end.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	read   chan struct{} // closed when stdout has ended
}

// lockedBuffer is written by a process and read by a test.
type lockedBuffer struct {
	mu      sync.Mutex // guards written
	written bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.written.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.written.String()
}

// start runs the command until it has written so many lines to stdout.
func start(t *testing.T, lines int, args ...string) *running {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no process can be asked to end there")
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, cmd: exec.Command(executable, args...), read: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), childEnv+"=1")
	r.cmd.Stderr = &r.stderr
	pipe, err := r.cmd.StdoutPipe()
	mustDo(t, err, r.cmd.Start())
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	ready := make(chan struct{})
	go func() {
		defer close(r.read)
		scanner := bufio.NewScanner(pipe)
		for n := 1; scanner.Scan(); n++ {
			_, _ = r.stdout.Write(append(scanner.Bytes(), '\n'))
			if n == lines {
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-r.read:
		_ = r.cmd.Wait()
		t.Fatalf("%v ended: %s%s", args, r.stdout.String(), r.stderr.String())
	}
	return r
}

// stop asks the process to end, and returns what it left behind.
func (r *running) stop(signal os.Signal) output {
	r.t.Helper()
	mustDo(r.t, r.cmd.Process.Signal(signal))
	<-r.read
	if err := r.cmd.Wait(); err != nil && !isExit(err) {
		r.t.Fatal(err)
	}
	return output{r.cmd.ProcessState.ExitCode(), r.stdout.String(), r.stderr.String()}
}

func isExit(err error) bool {
	_, ok := errors.AsType[*exec.ExitError](err)
	return ok
}

// eventually waits until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// showsNone looks for secrets in what was printed.
func showsNone(t *testing.T, printed string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if secret != "" && strings.Contains(printed, secret) {
			t.Errorf("a secret is shown in\n%s", printed)
		}
	}
}

var endings = []os.Signal{os.Interrupt, syscall.SIGTERM}
