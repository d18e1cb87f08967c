package amproutes

// A Reading is how one finds out whether a mutation was performed.
type Reading struct {
	Mutation string // method and path, as in the table of operations
	Key      string // what tells this mutation from others of its kind
	Read     string // the operation that shows it, or "none"
	Found    string // what in the answer shows that it was performed
	Sure     string // how sure that is: high, medium, low, none
}

// ReadingOf returns the reading of an operation, if it is a mutation of the table.
func ReadingOf(op Operation) (Reading, bool) {
	for _, r := range readings {
		if r.Mutation == op.Method+" "+op.Path {
			return r, true
		}
	}
	return Reading{}, false
}

// readings is the table of docs/exactly-once.md, in its order. The notes there belong to it.
var readings = []Reading{
	{"POST /assets/issue", "ticker and domain, yours to choose",
		"GET /assets/", "one of the list has both", "high"},
	{"GET /assets/{assetUuid}/distributions/create/", "the ids of the assignments that are ready",
		"GET /assets/{assetUuid}/assignments", "all of these have a distribution_uuid", "high"},
	{"POST /assets/{assetUuid}/assignments/create", "nothing: note the ids that are there before",
		"GET /assets/{assetUuid}/assignments", "a new id has its registered_user and amount", "medium"},
	{"POST /assets/{assetUuid}/reissue-request", "nothing",
		"none", "", "none"},
	{"POST /assets/{assetUuid}/burn-request", "nothing",
		"none", "", "none"},
	{"GET /assets/{assetUuid}/register", "the asset: it happens once",
		"GET /assets/{assetUuid}", "is_registered", "medium"},
	{"GET /assets/{assetUuid}/register-authorized", "the asset: it happens once",
		"GET /assets/{assetUuid}", "is_authorized", "medium"},
	{"DELETE /assets/{assetUuid}/distributions/{distributionUuid}/cancel", "the distribution",
		"GET /assets/{assetUuid}/assignments", "its assignments are there, and none has its distribution_uuid", "medium"},
	{"POST /assets/{assetUuid}/treasury-addresses/add", "the addresses",
		"GET /assets/{assetUuid}/treasury-addresses", "all are in the list", "high"},
	{"POST /registered_users/add", "GAID; without one, a name with a key in it",
		"GET /registered_users/", "one of the list has it", "high"},
	{"POST /registered_users/{registeredUserId}/gaids/add", "the GAID",
		"GET /registered_users/{registeredUserId}/gaids", "it is in the list", "high"},
	{"POST /categories/add", "a key in description",
		"GET /categories", "one of the list has it", "high"},
	{"POST /managers/create", "username",
		"GET /managers", "one of the list has it", "high"},
	{"POST /managers/{managerId}/change-password", "the new password",
		"POST /user/obtain_token as that manager", `it is taken; 400 is "not there"`, "low"},
	{"POST /user/change-password", "the new password",
		"POST /user/obtain_token", `it is taken; 400 is "not there"`, "medium"},
	{"GET /user/refresh-token", "the old token",
		"POST /user/obtain_token", "its token is another", "medium"},
}
