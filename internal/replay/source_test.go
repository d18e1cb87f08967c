package replay

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

type countedBody struct {
	io.Reader
	closed int
}

func (b *countedBody) Close() error {
	b.closed++
	return nil
}

// Whatever attempts do with a body that exists once, and in whatever order: it is
// closed once, at most one of them reads of it, and that one from its start.
func FuzzBodyThatExistsOnce(f *testing.F) {
	for _, seed := range []string{"", "r", "c", "n", "cn", "rcn", "nr", "RnrC", "cnrCc", "nnnn", "cncncn", "nCRr"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, steps string) {
		body := &countedBody{Reader: strings.NewReader("payload")}
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://api.test", body)
		if err != nil {
			t.Fatal(err)
		}
		source := NewSource(req)
		first, err := source.Next()
		if err != nil {
			t.Fatal(err)
		}
		attempts := []io.ReadCloser{first}
		var reader io.ReadCloser // the one that has read
		for _, step := range steps {
			current, earlier := attempts[len(attempts)-1], attempts[0]
			switch step {
			case 'n': // another attempt, if that is possible
				if !source.CanRepeat() {
					continue
				}
				next, err := source.Next()
				if err != nil || reader != nil {
					t.Fatalf("another attempt: %v, although the body was read: %v", err, reader != nil)
				}
				attempts = append(attempts, next)
			case 'r', 'R':
				who := current
				if step == 'R' {
					who = earlier
				}
				p := make([]byte, 1)
				n, _ := who.Read(p)
				if n > 0 && (reader != nil && reader != who || reader == nil && p[0] != 'p') {
					t.Fatalf("an attempt read %q of a body that is not its own", p)
				}
				if n > 0 {
					reader = who
				}
			case 'c':
				_ = current.Close()
			case 'C':
				_ = earlier.Close()
			}
			if body.closed > 1 || body.closed == 1 && reader == nil {
				t.Fatalf("closed %d times while another attempt is possible: %v", body.closed, reader == nil)
			}
		}
		source.Done()
		for _, attempt := range attempts {
			_ = attempt.Close()
			_ = attempt.Close()
		}
		if body.closed != 1 {
			t.Errorf("the body was closed %d times, want once", body.closed)
		}
	})
}
