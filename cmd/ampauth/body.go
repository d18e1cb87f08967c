package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ampauth/ampauth"
)

// maxBody bounds what call sends, in bytes.
const maxBody = 8 << 20

// readBody reads the file of that name, or stdin if it is "-", into memory that is wiped
// when the Secret is destroyed: a body may hold a password. What was read is left behind
// nowhere else. If ctx ends first, as stdin may never do, that is an error.
func readBody(ctx context.Context, name string) (body ampauth.Secret, size int, err error) {
	from, what := os.Stdin, "stdin"
	if name != "-" {
		what = "the file"
		if from, err = os.Open(name); err != nil {
			return body, 0, err
		}
		defer from.Close()
	}
	type result struct {
		content []byte
		err     error
	}
	read := make(chan result, 1)
	go func() {
		content, err := readAll(from, maxBody)
		read <- result{content, err}
	}()
	select {
	case r := <-read:
		switch {
		case r.err == errTooLong:
			return body, 0, fmt.Errorf("%s has more than %d MiB", what, maxBody>>20)
		case r.err != nil:
			return body, 0, r.err
		}
		if len(r.content) == 0 { // what should have made it has failed
			return body, 0, fmt.Errorf("%s is empty: leave out -d to send no body", what)
		}
		return ampauth.NewSecret(r.content), len(r.content), nil
	case <-ctx.Done():
		return body, 0, fmt.Errorf("%s was not read to its end: %w", what, context.Cause(ctx))
	}
}

var errTooLong = errors.New("too long")

// readAll reads all of r, and wipes each buffer that was too small.
func readAll(r io.Reader, limit int) ([]byte, error) {
	content := make([]byte, 0, 64<<10)
	for {
		n, err := r.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case len(content) > limit:
			err = errTooLong
		case err == io.EOF:
			return content, nil
		}
		if err != nil {
			clear(content)
			return nil, err
		}
		if len(content) == cap(content) {
			larger := append(make([]byte, 0, 2*cap(content)), content...)
			clear(content)
			content = larger
		}
	}
}

// A secretReader reads a Secret, until it is destroyed.
type secretReader struct {
	secret ampauth.Secret
	at     int
}

func (r *secretReader) Read(p []byte) (n int, err error) {
	err = r.secret.Expose(func(content []byte) error {
		if r.at == len(content) {
			return io.EOF
		}
		n = copy(p, content[r.at:])
		r.at += n
		return nil
	})
	return n, err
}
