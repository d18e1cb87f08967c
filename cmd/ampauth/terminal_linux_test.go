package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/ampauth/ampauth/internal/fakeamp"
)

// terminal returns the two ends of a terminal: what is written to the second is read from
// the first, and echoed nowhere.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals: ", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	var number, locked int32
	raw, err := screen.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := func(request uintptr, value *int32) {
		var errno syscall.Errno
		err := raw.Control(func(fd uintptr) {
			_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(value)))
		})
		if err != nil || errno != 0 {
			t.Skip("there are no terminals: ", err, errno)
		}
	}
	control(syscall.TIOCSPTLCK, &locked)
	control(syscall.TIOCGPTN, &number)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals: ", err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

// onTerminal runs a command whose stdout is a terminal, and returns what that shows.
func onTerminal(t *testing.T, args ...string) output {
	t.Helper()
	screen, tty := terminal(t)
	shown := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(screen) // ends in an error when nobody has the other end
		shown <- string(text)
	}()
	var stderr strings.Builder
	code := run(t.Context(), args, tty, &stderr)
	_ = tty.Close()
	return output{code, strings.ReplaceAll(<-shown, "\r\n", "\n"), stderr.String()}
}

func TestTokenIsShownOnATerminalOnlyByForce(t *testing.T) {
	for _, name := range []string{"token", "header"} {
		fake, _ := configure(t)
		got := onTerminal(t, name)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "-force") || len(fake.Counts()) > 0 {
			t.Errorf("%s: %+v, requests %v", name, got, fake.Counts())
		}
		if got := onTerminal(t, name, "-force"); got.code != exitOK || !strings.HasSuffix(got.stdout, fake.Token("issuer")+"\n") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnswerCannotCommandATerminal(t *testing.T) {
	const hostile = "{\"name\":\"\x1b]0;owned\x07\x1b[2J\u009b2J\u202eabc\u2028\xff\r\x00\x7f\",\n\t\"other\":\"\u6587 \u00e4\"}\n"
	const shown = "{\"name\":\"\\x1b]0;owned\\a\\x1b[2J\\u009b2J\\u202eabc\\u2028\\xff\\r\\x00\\x7f\",\n\t\"other\":\"\u6587 \u00e4\"}\n"
	for name, args := range map[string][]string{"get": {"get", "/assets"}, "call": {"call", "GET", "/assets"}} {
		fake, _ := configure(t)
		fake.Inject(fakeamp.Fault{Route: "GET /assets", Body: hostile, Times: -1})
		got := onTerminal(t, args...)
		got.stdout = strings.ReplaceAll(got.stdout, "        ", "\t") // a terminal makes spaces of a tab
		if got.code != exitOK || got.stdout != shown {
			t.Errorf("%s: %+v, want %q", name, got, shown)
		}
		if got := runCommand(t.Context(), args...); got.stdout != hostile {
			t.Errorf("%s: a file gets %q", name, got.stdout)
		}
	}
}
