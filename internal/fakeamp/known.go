package fakeamp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RouteMatches reports whether a route as a user writes it, "" for all and a path alone for
// any method, is for requests of that name.
func RouteMatches(route, request string) bool {
	_, path, _ := strings.Cut(request, " ")
	return route == "" || route == request || route == path
}

// KnownRoute returns a route of a user as [Fault] takes it, without a slash at the end, or
// what is wrong with it.
func KnownRoute(route string) (known, wrong string) {
	bare := strings.TrimSuffix(route, "/")
	all := slices.Sorted(maps.Keys(Routes()))
	if route == "" || slices.ContainsFunc(all, func(r string) bool { return RouteMatches(bare, r) }) {
		if route != "" && bare == "" { // a slash is not the empty route, which is for all
			return "", fmt.Sprintf("Route %q is none of AMP's", route)
		}
		return bare, ""
	}
	if strings.Contains(route, "://") {
		return "", fmt.Sprintf("Route %q is a URL; a route is a method and a path below URL, such as \"POST /assets/issue\"", route)
	}
	method, path, found := strings.Cut(bare, " ")
	if !found {
		method, path = "", bare
	}
	if below, ok := strings.CutPrefix(path, "/api/"); ok {
		return "", fmt.Sprintf("Route %q: paths are below URL, which ends in /api already: %q", route, join(method, "/"+below))
	}
	if method != strings.ToUpper(method) {
		return "", fmt.Sprintf("Route %q: methods are in upper case: %q", route, join(strings.ToUpper(method), path))
	}
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Sprintf("Route %q: the path of a route begins with a slash", route)
	}
	for _, r := range all {
		if _, template, _ := strings.Cut(r, " "); template == path {
			return "", fmt.Sprintf("Route %q: AMP has only %q at this path", route, r)
		}
	}
	for _, r := range all {
		itsMethod, template, _ := strings.Cut(r, " ")
		if (method == "" || method == itsMethod) && fits(template, path) {
			return "", fmt.Sprintf("Route %q is one path; the route of all like it is %q", route, join(method, template))
		}
	}
	wrong = fmt.Sprintf("Route %q is none of AMP's", route)
	nearest := slices.MinFunc(all, func(a, b string) int { return distance(a, bare) - distance(b, bare) })
	if distance(nearest, bare) <= len(bare)/3 {
		wrong += fmt.Sprintf("; is it %q?", nearest)
	}
	return "", wrong
}

func join(method, path string) string { return strings.TrimSpace(method + " " + path) }

// fits reports whether a path is one of a template.
func fits(template, path string) bool {
	return slices.EqualFunc(strings.Split(template, "/"), strings.Split(path, "/"), func(want, got string) bool {
		return want == got || strings.HasPrefix(want, "{") && got != ""
	})
}

// distance is how many letters have to be put in, left out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
