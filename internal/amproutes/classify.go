// Package amproutes knows the routes of the Blockstream AMP API, version
// 0.1.12, and of each whether it may be sent again.
package amproutes

import (
	"net/url"
	"path"
	"strings"
)

// Classify returns the class of a request to an AMP server. What it does not
// recognise in full is a [Mutation], whatever its method.
//
// The server may live below any base path. The route starts at the first
// segment that is one of the API's root words (info, changelog, user,
// registered_users, categories, assets, gaids, managers), and from there on
// everything must match one operation of the table. A base path that itself
// contains a root word hides the route, and makes a Mutation of it: the
// careful side. One final slash is ignored.
//
// Empty segments before the route are skipped, as /api//assets has one, which a base
// URL with a final slash makes. nginx finds the same route then, since it merges
// slashes; Django, where they reach it, answers 404 and does nothing.
//
// Segments are compared decoded. One that is empty within the route, a dot segment, or
// holds an encoded slash makes the request a Mutation, because servers and proxies
// differ in where they send it: WSGI, for one, decodes the path before Django
// looks for the route, and /assets/x%2Fregister is then a registration; a pattern of
// Django's that takes an empty parameter makes one of /assets//register.
//
// A word of the API wins over a parameter, without a second try: GET
// .../distributions/create creates, and is not the distribution of that name.
//
// HEAD is classified like GET, because Django REST framework runs the handler
// of GET for it. Methods are case-sensitive (RFC 9110, section 9.1).
func Classify(method string, u *url.URL) Class { return Find(method, u).Class }

// Find returns the operation of the table that a request asks for. It is the zero
// Operation, whose class is Mutation, where [Classify] does not recognise the request.
func Find(method string, u *url.URL) Operation {
	if u == nil || u.Opaque != "" { // net/http sends Opaque in place of the path
		return Operation{}
	}
	rest, encoded := u.Path, false
	if u.RawPath != "" {
		// EscapedPath, since RawPath is only a hint and may contradict Path.
		rest, encoded = u.EscapedPath(), true
	}
	// A path without a first slash is none that a server could be asked for.
	rest, more := strings.CutPrefix(strings.TrimSuffix(rest, "/"), "/")
	if method == "HEAD" {
		method = "GET"
	}

	var at *node // nil while in the base path
	for more {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if encoded {
			var err error
			segment, err = url.PathUnescape(segment)
			if err != nil || strings.Contains(segment, "/") {
				return Operation{}
			}
		}
		switch {
		case segment == "." || segment == "..", segment == "" && at != nil:
			return Operation{}
		case at == nil:
			at = root.word(segment)
		default:
			if at = at.child(segment); at == nil {
				return Operation{}
			}
		}
	}
	if at == nil || at.operation.Method != method {
		return Operation{}
	}
	return at.operation
}

// Mutates reports whether some server may take a request for one of the mutations in
// the table, however its path is written: decoded, with dot segments and empty ones
// resolved, below any base path. [Classify] is careful with what it does not know; this
// is for the opposite question, whether it is known to be dangerous.
func Mutates(method string, u *url.URL) bool {
	if u == nil || u.Opaque != "" {
		return true
	}
	if method == "HEAD" {
		method = "GET"
	}
	segments := strings.Split(strings.Trim(path.Clean("/"+u.Path), "/"), "/")
	for i, segment := range segments {
		at := root.word(segment)
		for _, segment := range segments[i+1:] {
			if at == nil {
				break
			}
			at = at.child(segment)
		}
		if at != nil && at.operation.Method == method && at.operation.Class == Mutation {
			return true
		}
	}
	return false
}

// root is the table as a tree of segments. It is not changed after this.
var root = newTree(operations)

// A node is where a path has got to after some of its segments.
type node struct {
	words     []word // at most two dozen: going through them beats a map
	parameter *node  // for a segment that is none of the words; nil if none is taken

	// The operation that ends here, if any. AMP has the verb in the path, so
	// that no path has two.
	operation Operation
}

type word struct {
	segment string
	node    *node
}

func newTree(operations []Operation) *node {
	root := new(node)
	for _, op := range operations {
		at := root
		for segment := range strings.SplitSeq(strings.Trim(op.Path, "/"), "/") {
			at = at.grow(segment)
		}
		at.operation = op
	}
	return root
}

// grow returns the node below n for a segment of a template.
func (n *node) grow(segment string) *node {
	if strings.HasPrefix(segment, "{") {
		if n.parameter == nil {
			n.parameter = new(node)
		}
		return n.parameter
	}
	at := n.word(segment)
	if at == nil {
		at = new(node)
		n.words = append(n.words, word{segment, at})
	}
	return at
}

// child returns the node below n for a segment of a request, or nil.
func (n *node) child(segment string) *node {
	if at := n.word(segment); at != nil {
		return at
	}
	return n.parameter
}

func (n *node) word(segment string) *node {
	for _, w := range n.words {
		if w.segment == segment {
			return w.node
		}
	}
	return nil
}
