package main

import (
	"net/url"
	"path"
	"strings"
	"unicode"
)

// noPath is the rule that a path breaks which no URL can have.
const noPath = "is not the path of a URL"

// belowBase returns the PATH of a command line for Config.URL, or what is wrong with it. The
// texts do not quote it: a query may hold something private.
func belowBase(arg string) (path, fault string) {
	u, err := url.Parse(arg)
	switch {
	case err != nil:
		return "", "PATH " + noPath
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(arg, "//"):
		return "", "PATH must be below the base URL, not a URL of its own: the token goes nowhere else"
	case strings.Contains(arg, "#"):
		return "", "PATH must not hold a fragment"
	case u.Path == "":
		return "", "PATH is empty"
	}
	sent, _, _ := strings.Cut(arg, "?")
	if fault := pathFault(sent); fault != "" {
		return "", "PATH " + fault
	}
	return arg, ""
}

// pathFault says why a path, as sent, may mean something else to a server behind than here;
// "" for nothing. Servers differ in what else than a slash separates segments, in what
// belongs to a segment, in how often they decode, and in when they resolve the dots. None
// of AMP's paths needs what is refused.
func pathFault(path string) string {
	decoded, err := url.PathUnescape(path)
	switch {
	case err != nil:
		return noPath
	case strings.Count(decoded, "/") != strings.Count(path, "/"), strings.ContainsRune(decoded, '\\'):
		return "must not hold an escaped slash or a backslash"
	case strings.ContainsRune(decoded, '%'):
		return "must not be escaped twice"
	case strings.ContainsRune(decoded, ';'):
		return "must not hold a semicolon"
	case strings.ContainsFunc(decoded, isHidden):
		return "must not hold control characters, or what is not UTF-8"
	case strings.Contains(decoded, "//"):
		return "must not hold empty segments"
	case strings.ContainsRune(path, '#'):
		return "must not hold a fragment"
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		if segment = strings.TrimSpace(segment); segment == "." || segment == ".." {
			return "must not hold the segments . or .., which lead out of the base URL"
		}
	}
	return ""
}

// isHidden reports whether nobody sees a character where it stands, or it stands for bytes
// that are none.
func isHidden(c rune) bool {
	return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == '\u2028' || c == '\u2029' || c == '\ufffd'
}

// givesToken reports whether a call is one of those that are the token's own, on whose
// spelling the sources disagree.
func givesToken(u *url.URL) bool {
	at := path.Clean(u.Path)
	return strings.HasSuffix(at, "/user/obtain_token") || strings.HasSuffix(at, "/user/refresh-token") || strings.HasSuffix(at, "/user/refresh_token")
}
