package amproutes

import "slices"

// Class says what it means to send the same request a second time.
type Class int

const (
	// Mutation must not be sent again by a machine once it may have reached
	// the server. It is the zero value, and the class of whatever is not known.
	Mutation Class = iota
	// Idempotent leaves the same state however often it arrives.
	Idempotent
	// Safe changes nothing.
	Safe
)

func (c Class) String() string {
	switch c {
	case Safe:
		return "safe"
	case Idempotent:
		return "idempotent"
	default:
		return "mutation"
	}
}

// Operation is one operation of the AMP API.
type Operation struct {
	Method string
	Path   string // below the base path; {name} stands for any one segment
	Class  Class
}

// Operations returns a copy of the table, in its order.
func Operations() []Operation { return slices.Clone(operations) }

// operations is the API at version 0.1.12: 78 operations, the most dangerous
// first.
//
// Source: a reconstruction of the official Swagger 2.0 document, which is not
// public as a file. Methods and paths are those of its ancestor (Liquid
// Securities 1.0.2, as published by tokensoft/LiquidSecurityClient), brought
// forward by the changelog that the API itself serves, and of what public
// clients call. Which of them bear a repeat is read out of the same sources;
// the API does not say.
var operations = []Operation{
	// Not to be repeated. Four of these are GETs all the same: the method alone
	// decides nothing on this API.
	{"POST", "/assets/issue", Mutation}, // on chain
	{"GET", "/assets/{assetUuid}/distributions/create/", Mutation},
	{"POST", "/assets/{assetUuid}/assignments/create", Mutation},
	{"POST", "/assets/{assetUuid}/reissue-request", Mutation},
	{"POST", "/assets/{assetUuid}/burn-request", Mutation},
	{"GET", "/assets/{assetUuid}/register", Mutation}, // with a third party
	{"GET", "/assets/{assetUuid}/register-authorized", Mutation},
	// A delete in name only: after a cancel, no new distribution could be made.
	{"DELETE", "/assets/{assetUuid}/distributions/{distributionUuid}/cancel", Mutation},
	{"POST", "/assets/{assetUuid}/treasury-addresses/add", Mutation},
	{"POST", "/registered_users/add", Mutation},
	{"POST", "/registered_users/{registeredUserId}/gaids/add", Mutation},
	{"POST", "/categories/add", Mutation},
	{"POST", "/managers/create", Mutation},
	// These three end a token that somebody may be using.
	{"POST", "/managers/{managerId}/change-password", Mutation},
	{"POST", "/user/change-password", Mutation},
	{"GET", "/user/refresh-token", Mutation},

	// Reports of an on-chain transaction that has been made already. The
	// official client script tells its user to send the same payload again.
	{"POST", "/assets/{assetUuid}/reissue-confirm", Idempotent},
	{"POST", "/assets/{assetUuid}/burn-confirm", Idempotent},
	{"POST", "/assets/{assetUuid}/distributions/{distributionUuid}/confirm", Idempotent},

	// Writes that leave the same state. A repeated delete answers 404.
	{"PUT", "/registered_users/{registeredUserId}/edit", Idempotent},
	{"DELETE", "/registered_users/{registeredUserId}/delete", Idempotent},
	{"POST", "/registered_users/{registeredUserId}/gaids/set-default", Idempotent},
	{"PUT", "/categories/{categoryId}/edit", Idempotent},
	{"DELETE", "/categories/{categoryId}/delete", Idempotent},
	{"PUT", "/categories/{categoryId}/registered_users/{registeredUserId}/add", Idempotent},
	{"PUT", "/categories/{categoryId}/registered_users/{registeredUserId}/remove", Idempotent},
	{"PUT", "/categories/{categoryId}/assets/{assetUuid}/add", Idempotent},
	{"PUT", "/categories/{categoryId}/assets/{assetUuid}/remove", Idempotent},
	{"PUT", "/assets/{assetUuid}/edit", Idempotent},
	{"PUT", "/assets/{assetUuid}/lock", Idempotent},
	{"PUT", "/assets/{assetUuid}/unlock", Idempotent},
	{"DELETE", "/assets/{assetUuid}/delete", Idempotent},
	{"POST", "/assets/{assetUuid}/utxos/blacklist", Idempotent},
	{"POST", "/assets/{assetUuid}/utxos/whitelist", Idempotent},
	{"POST", "/assets/{assetUuid}/memo/set", Idempotent},
	{"POST", "/assets/{assetUuid}/update-blinders", Idempotent},
	{"DELETE", "/assets/{assetUuid}/treasury-addresses/delete", Idempotent},
	{"DELETE", "/assets/{assetUuid}/assignments/{assignmentId}/delete", Idempotent},
	{"PUT", "/assets/{assetUuid}/assignments/{assignmentId}/lock", Idempotent},
	{"PUT", "/assets/{assetUuid}/assignments/{assignmentId}/unlock", Idempotent},
	{"PUT", "/managers/{managerId}/lock", Idempotent},
	{"PUT", "/managers/{managerId}/unlock", Idempotent},
	{"PUT", "/managers/{managerId}/assets/{assetUuid}/add", Idempotent},
	{"PUT", "/managers/{managerId}/assets/{assetUuid}/remove", Idempotent},

	// Reading.
	{"GET", "/info", Safe},
	{"GET", "/changelog", Safe},
	{"POST", "/user/obtain_token", Safe}, // a user has one token, and a repeat gets the same
	{"GET", "/registered_users/", Safe},
	{"GET", "/registered_users/{registeredUserId}", Safe},
	{"GET", "/registered_users/{registeredUserId}/summary", Safe},
	{"GET", "/registered_users/{registeredUserId}/gaids", Safe},
	{"GET", "/categories", Safe},
	{"GET", "/categories/{categoryId}", Safe},
	{"GET", "/assets/", Safe},
	{"GET", "/assets/{assetUuid}", Safe},
	{"GET", "/assets/{assetUuid}/activities", Safe},
	{"GET", "/assets/{assetUuid}/ownerships", Safe},
	{"GET", "/assets/{assetUuid}/balance", Safe},
	{"GET", "/assets/{assetUuid}/summary", Safe},
	{"GET", "/assets/{assetUuid}/utxos", Safe},
	{"GET", "/assets/{assetUuid}/reissuances", Safe},
	{"GET", "/assets/{assetUuid}/treasury-addresses", Safe},
	{"GET", "/assets/{assetUuid}/memo", Safe},
	{"GET", "/assets/{assetUuid}/lost-outputs", Safe},
	{"GET", "/assets/{assetUuid}/txs", Safe},
	{"GET", "/assets/{assetUuid}/txs/{txid}", Safe},
	{"GET", "/assets/{assetUuid}/assignments", Safe},
	{"GET", "/assets/{assetUuid}/assignments/{assignmentId}", Safe},
	{"GET", "/assets/{assetUuid}/distributions", Safe},
	{"GET", "/assets/{assetUuid}/distributions/{distributionUuid}", Safe},
	{"GET", "/gaids/{gaid}/validate", Safe},
	{"GET", "/gaids/{gaid}/address", Safe}, // presumably a new address each time, which costs nothing
	{"GET", "/gaids/{gaid}/registered_user", Safe},
	{"GET", "/gaids/{gaid}/balance", Safe},
	{"GET", "/gaids/{gaid}/balance/{assetUuid}", Safe},
	{"GET", "/managers", Safe},
	{"GET", "/managers/me", Safe},
	{"GET", "/managers/{managerId}", Safe},
}
