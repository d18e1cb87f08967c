package origin

import (
	"net/url"
	"slices"
	"strings"
)

// Trim takes the slashes off the end of a base URL, which mean nothing there.
func Trim(base string) string { return strings.TrimRight(base, "/") }

// Join returns the URL of a path below a base URL, which has no query and no fragment.
// Whatever the path holds, the result is below the base for every reader of URLs, but one
// that takes parameters off a segment before it resolves that (..;x), as AMP's do not: dot
// segments are resolved and lead no higher than the base, and in a segment that would
// hold some once a server has decoded it, the escapes are escaped. What no URL may hold
// is escaped, other escapes stay. A fragment is left out.
func Join(base, path string) string {
	path, _, _ = strings.Cut(path, "#")
	path, query, hasQuery := strings.Cut(path, "?")
	var segments []string
	rest, more := path, path != ""
	for more {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch {
		case segment == "." || segment == "..":
			if segment == ".." {
				segments = segments[:max(len(segments)-1, 0)]
			}
			if !more {
				segments = append(segments, "")
			}
		case segment != "" || len(segments) > 0 || !more: // one slash between the two
			segments = append(segments, quoted(segment))
		}
	}
	joined := Trim(base)
	if len(segments) > 0 {
		joined += "/" + strings.Join(segments, "/")
	}
	if hasQuery {
		joined += "?" + escaped(query)
	}
	return joined
}

// quoted returns a segment in the form of a URL.
func quoted(segment string) string {
	segment = escaped(segment)
	decoded, _ := url.PathUnescape(segment) // escaped left no fault in it
	parts := strings.FieldsFunc(decoded, func(r rune) bool { return r == '/' || r == '\\' })
	if slices.Contains(parts, ".") || slices.Contains(parts, "..") {
		return strings.ReplaceAll(segment, "%", "%25")
	}
	return segment
}

// escaped replaces the bytes that no part of a URL may hold (RFC 3986, 2), among them a
// percent sign that begins no escape.
func escaped(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		isEscape := c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2])
		if isEscape || c > ' ' && c < 0x7f && !strings.ContainsRune("\"%<>\\^`{|}", rune(c)) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&0xf]})
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
