package fakeamp

import (
	"net/http"
	"slices"
	"strings"
)

// class says what a second sending of the same request does.
type class string

const (
	safe       class = "safe"       // reads only (or obtains the token)
	idempotent class = "idempotent" // leaves the same state
	resend     class = "resend"     // is what AMP's own client script advises after a doubt
	never      class = "never"      // happens a second time
)

// flags of a route.
type flags uint8

const (
	open         flags = 1 << iota // needs no token
	withBody                       // needs a JSON body
	withPassword                   // is where a password may be sent
	eitherSlash                    // a list: with and without a slash at the end
	finalSlash                     // with a slash at the end; without it, a redirect
)

// route is one operation. Its view runs with the server's lock held, after
// authentication.
type route struct {
	method string
	path   string // template, without a slash at the end
	class  class
	flags  flags
	view   view
}

type view func(*Server, *call) answer

func (rt *route) has(f flags) bool { return rt.flags&f != 0 }

// name is the route in counters, faults and the effect log.
func (rt *route) name() string { return rt.method + " " + rt.path }

const refreshPath = "/user/refresh-token"

// routes are the 78 operations of version 0.1.12. It is never written to.
var routes = []route{
	{"GET", "/info", safe, open, fixed(200, `{"version":"0.1.12","notes":""}`)},
	{"GET", "/changelog", safe, open, fixed(200, `{"0.1.12":"Adds unblinded_url to the transactions of an asset."}`)},

	{"POST", "/user/obtain_token", safe, open | withPassword, (*Server).obtain}, // JSON or a form
	{"GET", refreshPath, never, 0, (*Server).refresh},
	{"POST", "/user/change-password", never, withBody | withPassword, (*Server).changePassword},

	{"GET", "/registered_users", safe, eitherSlash, (*Server).listUsers},
	{"GET", "/registered_users/{registeredUserId}", safe, 0, (*Server).readUser},
	{"POST", "/registered_users/add", never, withBody, (*Server).addUser},
	{"PUT", "/registered_users/{registeredUserId}/edit", idempotent, withBody, change((*Server).user, (*registeredUser).edit, userBody)},
	{"DELETE", "/registered_users/{registeredUserId}/delete", idempotent, 0, remove(usersOf, (*Server).user)},
	{"GET", "/registered_users/{registeredUserId}/summary", safe, 0, fixed(200, `{"assignments":[],"assignments_sum":0,"distributions":[],"distributions_sum":0,"balance":0}`)},
	{"GET", "/registered_users/{registeredUserId}/gaids", safe, 0, (*Server).listGAIDs},
	{"POST", "/registered_users/{registeredUserId}/gaids/add", never, withBody, quiet(change((*Server).user, (*registeredUser).addGAID, ""))},
	{"POST", "/registered_users/{registeredUserId}/gaids/set-default", idempotent, withBody, quiet(change((*Server).user, (*registeredUser).setDefaultGAID, ""))},

	{"GET", "/categories", safe, eitherSlash, (*Server).listCategories},
	{"POST", "/categories/add", never, withBody, (*Server).addCategory},
	{"GET", "/categories/{categoryId}", safe, 0, read((*Server).category, categoryBody)},
	{"PUT", "/categories/{categoryId}/edit", idempotent, withBody, change((*Server).category, (*category).edit, categoryBody)},
	{"DELETE", "/categories/{categoryId}/delete", idempotent, 0, remove(categoriesOf, (*Server).category)},
	{"PUT", "/categories/{categoryId}/registered_users/{registeredUserId}/add", idempotent, 0, userInCategory(true)},
	{"PUT", "/categories/{categoryId}/registered_users/{registeredUserId}/remove", idempotent, 0, userInCategory(false)},
	{"PUT", "/categories/{categoryId}/assets/{assetUuid}/add", idempotent, 0, assetInCategory(true)},
	{"PUT", "/categories/{categoryId}/assets/{assetUuid}/remove", idempotent, 0, assetInCategory(false)},

	{"GET", "/assets", safe, eitherSlash, (*Server).listAssets},
	{"POST", "/assets/issue", never, withBody, (*Server).issueAsset},
	{"GET", "/assets/{assetUuid}", safe, 0, (*Server).readAsset},
	{"PUT", "/assets/{assetUuid}/edit", idempotent, withBody, change((*Server).asset, (*asset).keep, assetBody)},
	{"DELETE", "/assets/{assetUuid}/delete", idempotent, 0, remove(assetsOf, (*Server).asset)},
	{"GET", "/assets/{assetUuid}/register", never, 0, change((*Server).asset, (*asset).register, assetBody)},
	{"GET", "/assets/{assetUuid}/register-authorized", never, 0, change((*Server).asset, (*asset).authorize, assetBody)},
	{"PUT", "/assets/{assetUuid}/lock", idempotent, 0, change((*Server).asset, (*asset).lock, assetBody)},
	{"PUT", "/assets/{assetUuid}/unlock", idempotent, 0, change((*Server).asset, (*asset).unlock, assetBody)},
	{"GET", "/assets/{assetUuid}/activities", safe, 0, fixed(200, `[]`)},
	{"GET", "/assets/{assetUuid}/ownerships", safe, 0, fixed(200, `[]`)},
	{"GET", "/assets/{assetUuid}/balance", safe, 0, fixed(200, `{"confirmed_balance":[],"lost_outputs":[],"reissuance_lost_outputs":[]}`)},
	{"GET", "/assets/{assetUuid}/summary", safe, 0, (*Server).assetSummary},
	{"GET", "/assets/{assetUuid}/utxos", safe, 0, fixed(200, `[]`)},
	{"POST", "/assets/{assetUuid}/utxos/blacklist", idempotent, withBody, fixed(200, `[]`)},
	{"POST", "/assets/{assetUuid}/utxos/whitelist", idempotent, withBody, fixed(200, `[]`)},
	{"GET", "/assets/{assetUuid}/reissuances", safe, 0, (*Server).listReissuances},
	{"POST", "/assets/{assetUuid}/reissue-request", never, withBody, (*Server).requestReissuance},
	{"POST", "/assets/{assetUuid}/reissue-confirm", resend, withBody, (*Server).confirmReissuance},
	{"POST", "/assets/{assetUuid}/burn-request", never, withBody, (*Server).requestBurn},
	{"POST", "/assets/{assetUuid}/burn-confirm", resend, withBody, quiet(change((*Server).asset, (*asset).confirmBurn, ""))},
	{"GET", "/assets/{assetUuid}/treasury-addresses", safe, 0, (*Server).listTreasury},
	{"POST", "/assets/{assetUuid}/treasury-addresses/add", never, withBody, quiet(change((*Server).asset, (*asset).addTreasury, ""))},
	{"DELETE", "/assets/{assetUuid}/treasury-addresses/delete", idempotent, withBody, quiet(change((*Server).asset, (*asset).removeTreasury, ""))},
	{"GET", "/assets/{assetUuid}/memo", safe, 0, fixed(200, `""`)},
	{"POST", "/assets/{assetUuid}/memo/set", idempotent, withBody, fixed(200, `{}`)},
	{"GET", "/assets/{assetUuid}/lost-outputs", safe, 0, fixed(200, `{"lost_outputs":[],"reissuance_lost_outputs":[]}`)},
	{"POST", "/assets/{assetUuid}/update-blinders", idempotent, withBody, fixed(200, `{}`)},
	{"GET", "/assets/{assetUuid}/txs", safe, 0, (*Server).listTransactions},
	{"GET", "/assets/{assetUuid}/txs/{txid}", safe, 0, fixed(200, `{"txid":"`+txid+`","inputs":[],"outputs":[]}`)},

	{"GET", "/assets/{assetUuid}/assignments", safe, 0, (*Server).listAssignments},
	{"GET", "/assets/{assetUuid}/assignments/{assignmentId}", safe, 0, (*Server).readAssignment},
	{"POST", "/assets/{assetUuid}/assignments/create", never, withBody, (*Server).createAssignments},
	{"DELETE", "/assets/{assetUuid}/assignments/{assignmentId}/delete", idempotent, 0, remove(assignmentsOf, (*Server).assignment)},
	{"PUT", "/assets/{assetUuid}/assignments/{assignmentId}/lock", idempotent, 0, change((*Server).assignment, (*assignment).lock, assignmentBody)},
	{"PUT", "/assets/{assetUuid}/assignments/{assignmentId}/unlock", idempotent, 0, change((*Server).assignment, (*assignment).unlock, assignmentBody)},
	{"GET", "/assets/{assetUuid}/distributions", safe, 0, (*Server).listDistributions},
	{"GET", "/assets/{assetUuid}/distributions/{distributionUuid}", safe, 0, (*Server).readDistribution},
	{"GET", "/assets/{assetUuid}/distributions/create", never, finalSlash, (*Server).createDistribution},
	{"POST", "/assets/{assetUuid}/distributions/{distributionUuid}/confirm", resend, withBody, (*Server).confirmDistribution},
	{"DELETE", "/assets/{assetUuid}/distributions/{distributionUuid}/cancel", never, 0, (*Server).cancelDistribution},

	{"GET", "/gaids/{gaid}/validate", safe, 0, fixed(200, `{"is_valid":true}`)},
	{"GET", "/gaids/{gaid}/address", safe, 0, fixed(200, `{"address":"fake-address"}`)},
	{"GET", "/gaids/{gaid}/registered_user", safe, 0, (*Server).readUserOfGAID},
	{"GET", "/gaids/{gaid}/balance", safe, 0, fixed(200, `[]`)},
	{"GET", "/gaids/{gaid}/balance/{assetUuid}", safe, 0, fixed(200, `{"balance":0}`)},

	{"GET", "/managers", safe, eitherSlash, (*Server).listManagers},
	{"POST", "/managers/create", never, withBody | withPassword, (*Server).createManager},
	{"GET", "/managers/me", safe, 0, fixed(200, managerBody)},
	{"GET", "/managers/{managerId}", safe, 0, read((*Server).manager, managerBody)},
	{"PUT", "/managers/{managerId}/lock", idempotent, 0, quiet(change((*Server).manager, (*manager).lock, ""))},
	{"PUT", "/managers/{managerId}/unlock", idempotent, 0, quiet(change((*Server).manager, (*manager).unlock, ""))},
	{"POST", "/managers/{managerId}/change-password", never, withBody | withPassword, (*Server).changeManagersPassword},
	{"PUT", "/managers/{managerId}/assets/{assetUuid}/add", idempotent, 0, quiet(change((*Server).manager, (*manager).addAsset, ""))},
	{"PUT", "/managers/{managerId}/assets/{assetUuid}/remove", idempotent, 0, quiet(change((*Server).manager, (*manager).removeAsset, ""))},
}

// Routes returns every operation of the API, as Count and Fault name it, with
// its class: "safe", "idempotent", "resend" (the same request may be sent
// again) or "never" (it must not be).
func Routes() map[string]string {
	classes := make(map[string]string, len(routes))
	for _, rt := range routes {
		classes[rt.name()] = string(rt.class)
	}
	return classes
}

// allow is the Allow header in DRF's order. AMP has one operation to a path;
// HEAD comes with GET, and OPTIONS by itself.
func (rt *route) allow() string {
	if rt.method == http.MethodGet {
		return "GET, HEAD, OPTIONS"
	}
	return rt.method + ", OPTIONS"
}

// inOrder returns the routes in the order in which they are tried: those with
// fewer parameters first, so that /assets/issue is not taken for an asset.
func inOrder(table []route) []route {
	return slices.SortedStableFunc(slices.Values(table), func(a, b route) int {
		return strings.Count(a.path, "{") - strings.Count(b.path, "{")
	})
}

// target is what a request is for.
type target struct {
	name     string            // for counters and faults
	path     string            // as sent, behind the base, without a slash at the end
	route    *route            // nil if there is nothing at this path
	method   string            // GET for HEAD
	params   map[string]string // values of the template's parameters
	redirect bool              // only the slash at the end is missing
}

// resolve finds the target of a request. Paths are taken as sent: a double
// slash, which some clients make of a base URL that ends in one, fits nothing.
func (s *Server) resolve(r *http.Request) target {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	path, inside := strings.CutPrefix(r.URL.Path, s.base+"/")
	if !inside {
		return target{name: method + " " + r.URL.Path, method: method}
	}
	path = "/" + path
	bare, slashed := strings.CutSuffix(path, "/")
	segments := strings.Split(bare, "/")
	for i := range s.routes {
		rt := &s.routes[i]
		if slashed && !rt.has(eitherSlash|finalSlash) {
			continue
		}
		if params, ok := match(rt.path, segments); ok {
			return target{
				name:     method + " " + rt.path,
				path:     bare,
				route:    rt,
				method:   method,
				params:   params,
				redirect: rt.has(finalSlash) && !slashed,
			}
		}
	}
	return target{name: method + " " + path, method: method}
}

// match compares a path with a template and returns the parameters' values.
func match(template string, segments []string) (map[string]string, bool) {
	if strings.Count(template, "/") != len(segments)-1 {
		return nil, false
	}
	params := make(map[string]string)
	for i, want := range strings.Split(template, "/") {
		got := segments[i]
		name, isParam := strings.CutPrefix(want, "{")
		switch {
		case !isParam && got != want, isParam && got == "":
			return nil, false
		case strings.HasSuffix(name, "Id}") && strings.Trim(got, "0123456789") != "":
			return nil, false // The ids of users, categories, assignments and managers are numbers.
		case isParam:
			params[strings.TrimSuffix(name, "}")] = got
		}
	}
	return params, true
}
