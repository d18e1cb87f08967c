package ampauth

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
)

// maxLoginAnswer bounds the answer of the login endpoints, packed and unpacked, in bytes.
const maxLoginAnswer = 64 << 10

var (
	errAnswerTooLarge = errors.New("the answer is larger than 64 KiB")
	errAnswerNotGzip  = errors.New("the answer is not the gzip that its Content-Encoding says: check what is between here and AMP")
)

// readAnswer reads the whole of an answer into buffer, which has room for maxLoginAnswer
// bytes and one more. err says that it did not arrive, fault what is wrong with it. The
// request asks for no encoding, and some proxies pack all the same. Whoever calls it wipes
// the buffer; what gzip keeps of its own, the last 32 KiB, nobody can.
func readAnswer(resp *http.Response, buffer []byte) (n int, fault, err error) {
	encoding := strings.ToLower(strings.Join(resp.Header.Values("Content-Encoding"), ","))
	switch encoding {
	case "", "identity":
		n, err = readInto(buffer, resp.Body)
	case "gzip", "x-gzip":
		// The whole of it first: gzip would read ahead into a buffer that nobody wipes.
		packed := make([]byte, len(buffer))
		defer clear(packed)
		n, err = readInto(packed, resp.Body)
		if err == nil && n <= maxLoginAnswer {
			n, fault = unpackInto(buffer, packed[:n])
		}
	default:
		return 0, encodedAs(encoding), nil
	}
	if err == nil && fault == nil && n > maxLoginAnswer {
		fault = errAnswerTooLarge
	}
	return n, fault, err
}

func unpackInto(buffer, packed []byte) (n int, fault error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		n, err = readInto(buffer, unpacked)
	}
	if err != nil {
		return 0, errAnswerNotGzip
	}
	return n, nil
}

// readInto reads the whole of r, as far as buffer has room.
func readInto(buffer []byte, r io.Reader) (n int, err error) {
	for n < len(buffer) {
		k, err := r.Read(buffer[n:])
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// encodedAs is the fault of an answer in an encoding other than gzip, which is named if
// it is a word that can be no secret.
func encodedAs(encoding string) error {
	const longest = 10 // more than the registered ones need (RFC 9110, 8.4.1)
	plain := len(encoding) <= longest && strings.Trim(encoding, "abcdefghijklmnopqrstuvwxyz") == ""
	if !plain {
		encoding = "something unknown"
	}
	return errors.New("the answer is encoded as " + encoding + ", which was not asked for: have what is between here and AMP leave logins as they are")
}
