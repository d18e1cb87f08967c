package fakeamp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Answers of operations that keep no state, or on something that was not created here.
const (
	txid           = "00000000000000000000000000000000000000000000000000000000000000f0"
	assetBody      = `{"name":"Fake","asset_uuid":"00000000-0000-4000-8000-000000000000","is_registered":true,"is_authorized":true,"is_locked":false}`
	userBody       = `{"id":1,"GAID":null,"is_company":false,"name":"Fake","categories":[],"creator":1}`
	categoryBody   = `{"id":1,"name":"Fake","description":null,"registered_users":[],"assets":[]}`
	assignmentBody = `{"id":1,"registered_user":1,"amount":1,"ready_for_distribution":true,"is_distributed":false}`
	managerBody    = `{"username":"manager","id":1,"is_locked":false,"assets":[]}`
)

// state is what was created here. Ids are made of one running number, so that
// a run can be read.
type state struct {
	lastID        int
	assets        []*asset
	users         []*registeredUser
	categories    []*category
	managers      []*manager
	assignments   []*assignment
	distributions []*distribution
	deleted       map[string]bool // by path
}

func (st *state) nextID() int {
	st.lastID++
	return st.lastID
}

func uuid(n int) string  { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
func hex64(n int) string { return fmt.Sprintf("%064x", n) }

// list answers with an array; JSON has no nil slice.
func list[T any](items []T) answer {
	if items == nil {
		items = []T{}
	}
	return jsonAnswer(http.StatusOK, items)
}

// one answers with what match finds, or with 404.
func one[T any](items []*T, match func(*T) bool) answer {
	if item := first(items, match); item != nil {
		return jsonAnswer(http.StatusOK, item)
	}
	return notFound()
}

// first returns what match finds, or nil.
func first[T any](items []*T, match func(*T) bool) *T {
	if i := slices.IndexFunc(items, match); i >= 0 {
		return items[i]
	}
	return nil
}

// change is the view of an operation on one thing, which it answers with. One that was
// not created here is answered with a fixed body.
func change[T any](of func(*Server, *call) *T, do func(*T, *call), body string) view {
	return func(s *Server, c *call) answer {
		item := of(s, c)
		if item == nil {
			return rawAnswer(http.StatusOK, "application/json", []byte(body))
		}
		do(item, c)
		return jsonAnswer(http.StatusOK, item)
	}
}

// read is the view of one thing that answers for any id, but for what was deleted.
func read[T any](of func(*Server, *call) *T, body string) view {
	found := change(of, func(*T, *call) {}, body)
	return func(s *Server, c *call) answer {
		if s.state.deleted[c.target.path] {
			return notFound()
		}
		return found(s, c)
	}
}

// remove is the view of a deletion. What was not created here counts as deleted.
func remove[T any](items func(*state) *[]*T, of func(*Server, *call) *T) view {
	return func(s *Server, c *call) answer {
		if item := of(s, c); item != nil {
			all := items(&s.state)
			*all = without(*all, item)
			s.state.deleted[strings.TrimSuffix(c.target.path, "/delete")] = true
		}
		return rawAnswer(http.StatusNoContent, "", nil)
	}
}

// quiet answers with {} in place of what a view answers.
func quiet(v view) view {
	return func(s *Server, c *call) answer {
		v(s, c)
		return rawAnswer(http.StatusOK, "application/json", []byte("{}"))
	}
}

// with adds a value that is not there yet, without takes it away.
func with[T comparable](values []T, value T) []T {
	if slices.Contains(values, value) {
		return values
	}
	return append(values, value)
}

func without[T comparable](values []T, value T) []T {
	return slices.DeleteFunc(values, func(v T) bool { return v == value })
}

func (c *call) param(name string) string { return c.target.params[name] }

func (c *call) number(name string) int {
	n, _ := strconv.Atoi(c.param(name)) // Templates let only numbers pass.
	return n
}

// texts reads a body that is one text or an array of them.
func (c *call) texts() (all []string, ok bool) {
	var text string
	if json.Unmarshal(c.body, &text) == nil {
		return []string{text}, true
	}
	return all, json.Unmarshal(c.body, &all) == nil
}
