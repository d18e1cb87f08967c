package fakeamp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

// Answers of operations that keep no state.
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
	assets        []asset
	users         []registeredUser
	assignments   []*assignment
	distributions []*distribution
}

func (st *state) nextID() int {
	st.lastID++
	return st.lastID
}

func uuid(n int) string  { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
func hex64(n int) string { return fmt.Sprintf("%064x", n) }

// issuance is the request of POST /assets/issue.
type issuance struct {
	Name               string `json:"name"`
	Amount             int64  `json:"amount"`
	DestinationAddress string `json:"destination_address"`
	Domain             string `json:"domain"`
	Ticker             string `json:"ticker"`
	Precision          int    `json:"precision"`
	Pubkey             string `json:"pubkey"`
	IsConfidential     bool   `json:"is_confidential"`
	IsReissuable       bool   `json:"is_reissuable"`
	ReissuanceAmount   int64  `json:"reissuance_amount"`
	ReissuanceAddress  string `json:"reissuance_address"`
	TransferRestricted bool   `json:"transfer_restricted"`
}

type asset struct {
	Name               string  `json:"name"`
	AssetUUID          string  `json:"asset_uuid"`
	Issuer             int     `json:"issuer"`
	AssetID            string  `json:"asset_id"`
	ReissuanceTokenID  *string `json:"reissuance_token_id"`
	Requirements       []int   `json:"requirements"`
	Ticker             string  `json:"ticker"`
	Precision          int     `json:"precision"`
	Domain             string  `json:"domain"`
	Pubkey             string  `json:"pubkey"`
	IsRegistered       bool    `json:"is_registered"`
	IsAuthorized       bool    `json:"is_authorized"`
	IsLocked           bool    `json:"is_locked"`
	TransferRestricted bool    `json:"transfer_restricted"`
}

func (s *Server) issueAsset(c *call) answer {
	var req issuance
	if json.Unmarshal(c.body, &req) != nil {
		return notAnObject()
	}
	n := s.state.nextID()
	a := asset{
		Name:               req.Name,
		AssetUUID:          uuid(n),
		Issuer:             1,
		AssetID:            hex64(n),
		Requirements:       []int{},
		Ticker:             req.Ticker,
		Precision:          req.Precision,
		Domain:             req.Domain,
		Pubkey:             req.Pubkey,
		TransferRestricted: req.TransferRestricted,
	}
	if req.IsReissuable {
		a.ReissuanceTokenID = new(hex64(s.state.nextID()))
	}
	s.state.assets = append(s.state.assets, a)
	return jsonAnswer(http.StatusCreated, struct {
		issuance
		AssetUUID         string  `json:"asset_uuid"`
		AssetID           string  `json:"asset_id"`
		ReissuanceTokenID *string `json:"reissuance_token_id"`
		Txid              string  `json:"txid"`
		Vin               int     `json:"vin"`
		AssetVout         int     `json:"asset_vout"`
	}{req, a.AssetUUID, a.AssetID, a.ReissuanceTokenID, hex64(s.state.nextID()), 0, 0})
}

func (s *Server) listAssets(*call) answer { return list(s.state.assets) }

func (s *Server) readAsset(c *call) answer {
	return find(s.state.assets, func(a asset) bool { return a.AssetUUID == c.target.params["assetUuid"] })
}

type registeredUser struct {
	ID         int     `json:"id"`
	GAID       *string `json:"GAID"`
	IsCompany  bool    `json:"is_company"`
	Name       string  `json:"name"`
	Categories []int   `json:"categories"`
	Creator    int     `json:"creator"`
}

func (s *Server) addUser(c *call) answer {
	u := registeredUser{Categories: []int{}}
	if json.Unmarshal(c.body, &u) != nil {
		return notAnObject()
	}
	u.ID, u.Creator = s.state.nextID(), 1
	s.state.users = append(s.state.users, u)
	return jsonAnswer(http.StatusCreated, u)
}

func (s *Server) listUsers(*call) answer { return list(s.state.users) }

func (s *Server) readUser(c *call) answer {
	return find(s.state.users, func(u registeredUser) bool { return hasID(c, "registeredUserId", u.ID) })
}

type assignment struct {
	ID                   int     `json:"id"`
	RegisteredUser       int     `json:"registered_user"`
	Amount               int64   `json:"amount"`
	ReceivingAddress     *string `json:"receiving_address"`
	DistributionUUID     *string `json:"distribution_uuid"`
	ReadyForDistribution bool    `json:"ready_for_distribution"`
	IsDistributed        bool    `json:"is_distributed"`
	Creator              int     `json:"creator"`

	asset string
}

func (s *Server) createAssignments(c *call) answer {
	var req struct {
		Assignments []*struct {
			RegisteredUser       int   `json:"registered_user"`
			Amount               int64 `json:"amount"`
			ReadyForDistribution bool  `json:"ready_for_distribution"`
		} `json:"assignments"`
	}
	if json.Unmarshal(c.body, &req) != nil || slices.Contains(req.Assignments, nil) {
		return notAnObject()
	}
	if len(req.Assignments) > 1 { // Since 0.1.7.
		return fieldErrors(map[string]string{"assignments": "Ensure this field has no more than 1 elements."})
	}
	created := []*assignment{}
	for _, a := range req.Assignments {
		created = append(created, &assignment{
			ID:                   s.state.nextID(),
			RegisteredUser:       a.RegisteredUser,
			Amount:               a.Amount,
			ReadyForDistribution: a.ReadyForDistribution,
			Creator:              1,
			asset:                c.target.params["assetUuid"],
		})
	}
	s.state.assignments = append(s.state.assignments, created...)
	return jsonAnswer(http.StatusOK, created)
}

func (s *Server) listAssignments(c *call) answer {
	return list(slices.DeleteFunc(slices.Clone(s.state.assignments), func(a *assignment) bool {
		return a.asset != c.target.params["assetUuid"]
	}))
}

func (s *Server) readAssignment(c *call) answer {
	return find(s.state.assignments, func(a *assignment) bool {
		return a.asset == c.target.params["assetUuid"] && hasID(c, "assignmentId", a.ID)
	})
}

type distribution struct {
	UUID         string `json:"distribution_uuid"`
	Status       string `json:"distribution_status"`
	Transactions []any  `json:"transactions"`

	asset string
}

// createDistribution takes the assignments that are ready. With none it still
// answers 200, without a distribution_uuid, as AMP does. That counts as
// performed: a second call in a row shows in the log though it finds nothing.
func (s *Server) createDistribution(c *call) answer {
	asset := c.target.params["assetUuid"]
	amounts := make(map[string]int64)
	var taken []*assignment
	for _, a := range s.state.assignments {
		if a.asset == asset && a.ReadyForDistribution && a.DistributionUUID == nil {
			taken = append(taken, a)
		}
	}
	if len(taken) == 0 {
		return jsonAnswer(http.StatusOK, map[string]string{"asset_uuid": asset})
	}
	d := &distribution{UUID: uuid(s.state.nextID()), Status: "UNCONFIRMED", Transactions: []any{}, asset: asset}
	s.state.distributions = append(s.state.distributions, d)
	for _, a := range taken {
		address := "fake-address-" + strconv.Itoa(a.ID)
		a.DistributionUUID, a.ReceivingAddress = &d.UUID, &address
		amounts[address] = a.Amount
	}
	return jsonAnswer(http.StatusOK, map[string]any{
		"distribution_uuid":                   d.UUID,
		"command":                             "distribute",
		"min_supported_client_script_version": 2,
		"asset_uuid":                          asset,
		"map_address_amount":                  amounts,
	})
}

// listDistributions leaves out what is not confirmed yet, as AMP does.
func (s *Server) listDistributions(c *call) answer {
	return list(slices.DeleteFunc(slices.Clone(s.state.distributions), func(d *distribution) bool {
		return d.asset != c.target.params["assetUuid"] || d.Status != "CONFIRMED"
	}))
}

func (s *Server) readDistribution(c *call) answer {
	return find(s.state.distributions, func(d *distribution) bool { return d.is(c) })
}

// confirmDistribution may be sent again: the second time changes nothing.
func (s *Server) confirmDistribution(c *call) answer {
	for _, d := range s.state.distributions {
		if !d.is(c) {
			continue
		}
		d.Status = "CONFIRMED"
		for _, a := range s.state.assignments {
			a.IsDistributed = a.IsDistributed || a.DistributionUUID != nil && *a.DistributionUUID == d.UUID
		}
		return jsonAnswer(http.StatusOK, d)
	}
	return jsonAnswer(http.StatusOK, distribution{UUID: c.target.params["distributionUuid"], Status: "CONFIRMED", Transactions: []any{}})
}

func (d *distribution) is(c *call) bool {
	return d.asset == c.target.params["assetUuid"] && d.UUID == c.target.params["distributionUuid"]
}

// list answers with an array; JSON has no nil slice.
func list[T any](items []T) answer {
	if items == nil {
		items = []T{}
	}
	return jsonAnswer(http.StatusOK, items)
}

func find[T any](items []T, match func(T) bool) answer {
	if i := slices.IndexFunc(items, match); i >= 0 {
		return jsonAnswer(http.StatusOK, items[i])
	}
	return notFound()
}

func hasID(c *call, param string, id int) bool { return c.target.params[param] == strconv.Itoa(id) }
