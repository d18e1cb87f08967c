package fakeamp

import (
	"encoding/json"
	"net/http"
	"slices"
)

type registeredUser struct {
	ID         int     `json:"id"`
	GAID       *string `json:"GAID"` // the default one
	IsCompany  bool    `json:"is_company"`
	Name       string  `json:"name"`
	Categories []int   `json:"categories"`
	Creator    int     `json:"creator"`

	gaids []string
}

func (s *Server) addUser(c *call) answer {
	u := &registeredUser{Categories: []int{}}
	if json.Unmarshal(c.body, u) != nil {
		return notAnObject()
	}
	u.ID, u.Creator = s.state.nextID(), 1
	if u.GAID != nil {
		u.gaids = []string{*u.GAID}
	}
	s.state.users = append(s.state.users, u)
	return jsonAnswer(http.StatusCreated, u)
}

func (s *Server) listUsers(*call) answer { return list(s.state.users) }

func (s *Server) readUser(c *call) answer {
	return one(s.state.users, func(u *registeredUser) bool { return u.ID == c.number("registeredUserId") })
}

// user is the one that a path names, or nil.
func (s *Server) user(c *call) *registeredUser {
	return first(s.state.users, func(u *registeredUser) bool { return u.ID == c.number("registeredUserId") })
}

func usersOf(st *state) *[]*registeredUser { return &st.users }

func (u *registeredUser) edit(c *call) {
	var req struct{ Name *string }
	if json.Unmarshal(c.body, &req) == nil && req.Name != nil {
		u.Name = *req.Name
	}
}

func (s *Server) listGAIDs(c *call) answer {
	if u := s.user(c); u != nil {
		return list(u.gaids)
	}
	return list[string](nil)
}

// addGAID makes the first one the default.
func (u *registeredUser) addGAID(c *call) {
	gaids, _ := c.texts()
	for _, gaid := range gaids {
		u.gaids = with(u.gaids, gaid)
		if u.GAID == nil {
			u.GAID = &gaid
		}
	}
}

func (u *registeredUser) setDefaultGAID(c *call) {
	if gaids, _ := c.texts(); len(gaids) == 1 {
		u.GAID = &gaids[0]
	}
}

// readUserOfGAID has no fixed answer: 404 says that the GAID was added to nobody.
func (s *Server) readUserOfGAID(c *call) answer {
	return one(s.state.users, func(u *registeredUser) bool { return slices.Contains(u.gaids, c.param("gaid")) })
}

type category struct {
	ID              int      `json:"id"`
	Name            string   `json:"name"`
	Description     *string  `json:"description"`
	RegisteredUsers []int    `json:"registered_users"`
	Assets          []string `json:"assets"`
}

func (s *Server) addCategory(c *call) answer {
	k := &category{RegisteredUsers: []int{}, Assets: []string{}}
	if json.Unmarshal(c.body, k) != nil {
		return notAnObject()
	}
	k.ID = s.state.nextID()
	s.state.categories = append(s.state.categories, k)
	return jsonAnswer(http.StatusOK, k)
}

func (s *Server) listCategories(*call) answer { return list(s.state.categories) }

// category is the one that a path names, or nil.
func (s *Server) category(c *call) *category {
	return first(s.state.categories, func(k *category) bool { return k.ID == c.number("categoryId") })
}

func categoriesOf(st *state) *[]*category { return &st.categories }

func (k *category) edit(c *call) {
	var req struct{ Name, Description *string }
	if json.Unmarshal(c.body, &req) != nil {
		return
	}
	if req.Name != nil {
		k.Name = *req.Name
	}
	if req.Description != nil {
		k.Description = req.Description
	}
}

// userInCategory puts a registered user into a category, or takes it out, on both sides.
func userInCategory(in bool) view {
	return func(s *Server, c *call) answer {
		if u := s.user(c); u != nil {
			if u.Categories = without(u.Categories, c.number("categoryId")); in {
				u.Categories = with(u.Categories, c.number("categoryId"))
			}
		}
		return change((*Server).category, func(k *category, c *call) {
			if k.RegisteredUsers = without(k.RegisteredUsers, c.number("registeredUserId")); in {
				k.RegisteredUsers = with(k.RegisteredUsers, c.number("registeredUserId"))
			}
		}, categoryBody)(s, c)
	}
}

// assetInCategory makes a category a requirement of an asset, or no longer.
func assetInCategory(in bool) view {
	return func(s *Server, c *call) answer {
		if a := s.asset(c); a != nil {
			if a.Requirements = without(a.Requirements, c.number("categoryId")); in {
				a.Requirements = with(a.Requirements, c.number("categoryId"))
			}
		}
		return change((*Server).category, func(k *category, c *call) {
			if k.Assets = without(k.Assets, c.param("assetUuid")); in {
				k.Assets = with(k.Assets, c.param("assetUuid"))
			}
		}, categoryBody)(s, c)
	}
}

// manager is one that the issuer made. None of them logs in here.
type manager struct {
	Username string   `json:"username"`
	ID       int      `json:"id"`
	IsLocked bool     `json:"is_locked"`
	Assets   []string `json:"assets"`
}

// createManager makes one that is locked at first, as AMP does.
func (s *Server) createManager(c *call) answer {
	var req struct{ Username string }
	if json.Unmarshal(c.body, &req) != nil {
		return notAnObject()
	}
	m := &manager{Username: req.Username, ID: s.state.nextID(), IsLocked: true, Assets: []string{}}
	s.state.managers = append(s.state.managers, m)
	return jsonAnswer(http.StatusOK, m)
}

func (s *Server) listManagers(*call) answer { return list(s.state.managers) }

// manager is the one that a path names, or nil.
func (s *Server) manager(c *call) *manager {
	return first(s.state.managers, func(m *manager) bool { return m.ID == c.number("managerId") })
}

func (m *manager) lock(*call)          { m.IsLocked = true }
func (m *manager) unlock(*call)        { m.IsLocked = false }
func (m *manager) addAsset(c *call)    { m.Assets = with(m.Assets, c.param("assetUuid")) }
func (m *manager) removeAsset(c *call) { m.Assets = without(m.Assets, c.param("assetUuid")) }

// changeManagersPassword sends the new password back, as AMP really does, and a token.
func (s *Server) changeManagersPassword(c *call) answer {
	var req struct{ Password string }
	if json.Unmarshal(c.body, &req) != nil {
		return notAnObject()
	}
	name := "manager"
	if m := s.manager(c); m != nil {
		name = m.Username
	}
	return passwordAnswer(name, req.Password, randomHex(20))
}
