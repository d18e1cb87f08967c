package bench

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// copies counts how often the token stands in a client's memory after mutations. The
// client is another process, since the server knows the token as well.
func copies(o Options) (Section, error) {
	const mutations, limit = 200, 20
	section := Section{Text: fmt.Sprintf("A process of its own logs in, sends %d mutations of 1 KiB one after the other, and waits. Then all of its memory that can be written is searched for the token. Nothing is asked of its garbage collector. Rounds: %d; shown are the most.", mutations, o.childRounds())}
	t := table("", "contestant", "copies, HTTP/1.1 in clear", "over TLS")
	contestants := pick(o, stacks, stacks[:2])
	for i, c := range contestants {
		var most [2]int
		for j, secure := range []bool{false, true} {
			for range o.childRounds() {
				n, err := copiesAfter(i, secure, mutations)
				if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
					section.Text += " Left out here: it takes Linux, and the right to read the memory of a process that one has started."
					return section, nil
				}
				if err != nil {
					return Section{}, fmt.Errorf("%s: %w", c.Name, err)
				}
				most[j] = max(most[j], n)
			}
		}
		t.add(c.Name, fmt.Sprint(most[0]), fmt.Sprint(most[1]))
		if i == 0 {
			n := max(most[0], most[1])
			section.Goals = append(section.Goals, counted(fmt.Sprintf("copies of the token in memory after %d mutations", mutations),
				"itself", fmt.Sprintf("at most %d", limit), fmt.Sprint(n), n <= limit))
		}
		o.progress(i+1, len(contestants))
	}
	section.Tables = []Table{t}
	return section, nil
}

// childRounds is how often each contestant gets a process of its own.
func (o Options) childRounds() int { return pick(o, 5, 1) }

// A task is what a process of its own has to do. It reads it from its standard input.
type task struct {
	Stack     int // index in stacks
	URL       string
	Roots     string // PEM; empty: no TLS
	Mutations int
}

// childVariable is set for a process that has a task.
const childVariable = "AMPAUTH_BENCH_CHILD"

// RunTask does what another process of this program has started this one for, and ends
// it. In any other process it does nothing. A program that measures calls it first.
func RunTask() {
	if os.Getenv(childVariable) == "" {
		return
	}
	if err := runTask(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runTask sends the mutations, says so, and returns when its input ends.
func runTask(in io.Reader, out io.Writer) error {
	input := json.NewDecoder(in)
	var t task
	if err := input.Decode(&t); err != nil {
		return err
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.Proxy = nil
	if t.Roots != "" {
		base.TLSClientConfig.RootCAs = x509.NewCertPool()
		base.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(t.Roots))
		if t.Stack > 0 {
			base = onlyHTTP1(base)
		}
	}
	s := setup{Base: base, URL: t.URL, Timeout: timeoutOfAttempt}
	send, r := stacks[t.Stack].Over(s.withDefaults()), post(t.URL+"/assets/issue", 1<<10)
	for range t.Mutations {
		if err := finish(send(r.again())); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, "done"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// copiesAfter has a process send mutations, and counts the token in its memory.
func copiesAfter(stack int, secure bool, mutations int) (n int, err error) {
	server := serve(secure, 0, answerTwoBytes)
	defer server.Close()
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	child := exec.Command(program)
	child.Env = append(os.Environ(), childVariable+"=yes")
	var faults strings.Builder
	child.Stderr = &faults
	in, err := child.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := child.Start(); err != nil {
		return 0, err
	}
	late := time.AfterFunc(time.Minute, func() { _ = child.Process.Kill() })
	defer late.Stop()
	n, err = func() (int, error) {
		defer in.Close()
		t := task{Stack: stack, URL: server.apiURL(), Mutations: mutations}
		if secure {
			t.Roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
		}
		if err := json.NewEncoder(in).Encode(t); err != nil {
			return 0, err
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			return 0, err
		}
		total := 0
		for _, token := range server.issued() {
			n, err := memoryOf(child.Process.Pid, []byte(token))
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}()
	if failed := child.Wait(); failed != nil {
		err = fmt.Errorf("%w: %s", failed, &faults)
	}
	return n, err
}

// countIn counts needle in what r yields.
func countIn(r io.Reader, needle []byte) (n int, err error) {
	buffer := make([]byte, 1<<20)
	kept := 0 // bytes of the last piece, in which a needle may begin
	for {
		read, err := r.Read(buffer[kept:])
		filled := buffer[:kept+read]
		n += bytes.Count(filled, needle)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		kept = min(len(filled), len(needle)-1)
		copy(buffer, filled[len(filled)-kept:])
	}
}
