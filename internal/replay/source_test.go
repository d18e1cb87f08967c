package replay

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

type countedBody struct {
	io.Reader
	closed int
	fault  error // of Close
}

func (b *countedBody) Close() error {
	b.closed++
	return b.fault
}

// sourceOf returns a Source of body, made anew by anew.
func sourceOf(body io.ReadCloser, anew func() (io.ReadCloser, error)) Source {
	return NewSource(&http.Request{Method: http.MethodPost, Body: body, GetBody: anew})
}

// next returns the body of the next attempt.
func next(t *testing.T, s *Source) io.ReadCloser {
	t.Helper()
	body, err := s.Next()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestRequestWithoutBodyIsRepeatedWithoutOne(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		for _, anew := range []func() (io.ReadCloser, error){nil, func() (io.ReadCloser, error) { panic("GetBody was called") }} {
			source := sourceOf(body, anew)
			source.Unused()
			for range 3 {
				if got := next(t, &source); got != body || source.ExistsOnce() || !source.CanRepeat() {
					t.Errorf("in place of %v there is %v", body, got)
				}
			}
			source.Done()
		}
	}
}

func TestFirstAttemptHasTheCallersBodyAndOthersHaveFreshOnes(t *testing.T) {
	own := &countedBody{Reader: strings.NewReader("own")}
	var made []io.ReadCloser
	source := sourceOf(own, func() (io.ReadCloser, error) {
		made = append(made, &countedBody{Reader: strings.NewReader("fresh")})
		return made[len(made)-1], nil
	})
	if source.Started() || source.ExistsOnce() {
		t.Error("started, or exists once")
	}
	if got := next(t, &source); got != own || len(made) != 0 || !source.Started() {
		t.Errorf("the first attempt has %v, and %d were made", got, len(made))
	}
	for i := range 2 {
		if !source.CanRepeat() {
			t.Error("cannot repeat")
		}
		if got := next(t, &source); len(made) != i+1 || got != made[i] {
			t.Errorf("attempt %d has %v, and %d were made", i+2, got, len(made))
		}
	}
	source.Done()
	if own.closed != 0 {
		t.Error("the body of an attempt was closed for it")
	}
}

func TestErrorOfGetBodyIsPassedOn(t *testing.T) {
	fault := errors.New("the file is gone")
	source := sourceOf(&countedBody{Reader: strings.NewReader("own")}, func() (io.ReadCloser, error) { return nil, fault })
	next(t, &source)
	if _, err := source.Next(); err != fault {
		t.Errorf("got %v", err)
	}
}

func TestBodyThatExistsOnceGoesToOneAttemptAfterTheOther(t *testing.T) {
	own := &countedBody{Reader: strings.NewReader("payload")}
	source := sourceOf(own, nil)
	if !source.ExistsOnce() || !source.CanRepeat() {
		t.Error("cannot be sent at all")
	}
	first := next(t, &source)
	if !source.CanRepeat() {
		t.Fatal("cannot be sent again although nothing was read")
	}
	if _, err := first.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
		t.Errorf("an attempt whose body was taken back reads %v", err)
	}
	second := next(t, &source)
	if _, err := first.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
		t.Errorf("the first attempt reads %v of the body of the second", err)
	}
	if content, err := io.ReadAll(second); string(content) != "payload" || err != nil {
		t.Errorf("the second attempt reads %q, %v", content, err)
	}
	if source.CanRepeat() {
		t.Error("can be sent again although it was read")
	}
	if _, err := source.Next(); err != errBodyConsumed {
		t.Errorf("a third attempt has the error %v", err)
	}
}

func TestCloseOfABodyThatExistsOnceWaitsUntilNobodyNeedsIt(t *testing.T) {
	for _, test := range []struct {
		name, steps string
		want        []int // how often it was closed, after each step
	}{
		{"closed unread", "cd", []int{0, 1}},
		{"closed unread, when all is done", "dcc", []int{0, 1, 1}},
		{"read and closed", "rccd", []int{0, 1, 1, 1}},
		{"read, done and closed", "rdc", []int{0, 0, 1}},
		{"taken back", "td", []int{0, 1}},
		{"closed and taken back", "ctdd", []int{0, 0, 1, 1}},
		{"closed, and lent again", "ctndc", []int{0, 0, 0, 0, 1}},
		{"closed, and lent again without taking it back", "cndc", []int{0, 0, 0, 1}},
		{"not to be taken back after that", "cdt", []int{0, 1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			own := &countedBody{Reader: strings.NewReader("payload")}
			source := sourceOf(own, nil)
			body := next(t, &source)
			for i, step := range test.steps {
				switch step {
				case 'c':
					_ = body.Close()
				case 'd':
					source.Done()
				case 'n':
					body = next(t, &source)
				case 'r':
					_, _ = body.Read(make([]byte, 1))
				case 't':
					if got, want := source.CanRepeat(), own.closed == 0; got != want {
						t.Errorf("can be repeated: %t, want %t", got, want)
					}
				}
				if own.closed != test.want[i] {
					t.Errorf("after %q it was closed %d times, want %d", test.steps[:i+1], own.closed, test.want[i])
				}
			}
			if _, err := source.Next(); own.closed > 0 && err != errBodyConsumed {
				t.Errorf("a closed body is lent: %v", err)
			}
		})
	}
}

func TestCloseOfAnEarlierAttemptDoesNotCountForTheLater(t *testing.T) {
	own := &countedBody{Reader: strings.NewReader("payload")}
	source := sourceOf(own, nil)
	first := next(t, &source)
	source.CanRepeat()
	second := next(t, &source)
	_, _ = second.Read(make([]byte, 1))
	_ = first.Close()
	if rest, err := io.ReadAll(second); own.closed != 0 || string(rest) != "ayload" || err != nil {
		t.Errorf("closed %d times, and the rest is %q, %v", own.closed, rest, err)
	}
}

func TestAttemptSeesWhatItsCloseGave(t *testing.T) {
	own := &countedBody{Reader: strings.NewReader("payload"), fault: errors.New("the disk is full")}
	source := sourceOf(own, nil)
	body := next(t, &source)
	_, _ = body.Read(make([]byte, 1))
	if err := body.Close(); err != own.fault {
		t.Errorf("got %v", err)
	}
	if _, err := body.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
		t.Errorf("a closed body reads %v", err)
	}
}

func TestStalledReadKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled, _ := io.Pipe()
		source := sourceOf(stalled, nil)
		body := next(t, &source)
		read := make(chan error)
		go func() {
			_, err := body.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		if source.CanRepeat() {
			t.Error("can be sent again while somebody reads it")
		}
		_ = body.Close()
		if err := <-read; err != io.ErrClosedPipe {
			t.Errorf("the read ended with %v", err)
		}
	})
}

func TestReadAndTakingBackExcludeEachOther(t *testing.T) {
	for range 500 {
		source := sourceOf(&countedBody{Reader: strings.NewReader("payload")}, nil)
		body := next(t, &source)
		read := make(chan int)
		go func() {
			n, _ := body.Read(make([]byte, 1))
			read <- n
		}()
		if repeats := source.CanRepeat(); repeats != (<-read == 0) {
			t.Fatalf("it can be repeated: %t, after the first attempt read or did not read of it", repeats)
		}
	}
}

func TestBodyThatNoAttemptTookIsClosed(t *testing.T) {
	anew := func() (io.ReadCloser, error) { return http.NoBody, nil }
	for _, get := range []func() (io.ReadCloser, error){nil, anew} {
		own := &countedBody{Reader: strings.NewReader("payload")}
		source := sourceOf(own, get)
		source.Unused()
		if own.closed != 1 {
			t.Errorf("closed %d times, want once", own.closed)
		}
		own = &countedBody{Reader: strings.NewReader("payload")}
		source = sourceOf(own, get)
		next(t, &source)
		source.Unused()
		if own.closed != 0 {
			t.Error("closed although an attempt has it")
		}
	}
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
