package fakeamp

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

type assignment struct {
	ID                   int     `json:"id"`
	RegisteredUser       int     `json:"registered_user"`
	Amount               int64   `json:"amount"`
	ReceivingAddress     *string `json:"receiving_address"`
	DistributionUUID     *string `json:"distribution_uuid"`
	ReadyForDistribution bool    `json:"ready_for_distribution"`
	VestingDatetime      *string `json:"vesting_datetime"`
	VestingTimestamp     *int64  `json:"vesting_timestamp"`
	HasVested            bool    `json:"has_vested"` // as it was created
	IsDistributed        bool    `json:"is_distributed"`
	Creator              int     `json:"creator"`

	asset string
}

func (s *Server) createAssignments(c *call) answer {
	var req struct {
		Assignments []*struct {
			RegisteredUser       int    `json:"registered_user"`
			Amount               int64  `json:"amount"`
			ReadyForDistribution bool   `json:"ready_for_distribution"`
			VestingTimestamp     *int64 `json:"vesting_timestamp"`
		} `json:"assignments"`
	}
	if json.Unmarshal(c.body, &req) != nil || slices.Contains(req.Assignments, nil) {
		return notAnObject()
	}
	if req.Assignments == nil {
		return fieldErrors(map[string]string{"assignments": "This field is required."})
	}
	if len(req.Assignments) > 1 { // Since 0.1.7.
		return fieldErrors(map[string]string{"assignments": "Ensure this field has no more than 1 elements."})
	}
	created := []*assignment{}
	for _, a := range req.Assignments {
		made := &assignment{
			ID:                   s.state.nextID(),
			RegisteredUser:       a.RegisteredUser,
			Amount:               a.Amount,
			ReadyForDistribution: a.ReadyForDistribution,
			Creator:              1,
			VestingTimestamp:     a.VestingTimestamp,
			HasVested:            true,
			asset:                c.param("assetUuid"),
		}
		if a.VestingTimestamp != nil {
			vests := time.Unix(*a.VestingTimestamp, 0).UTC()
			made.VestingDatetime, made.HasVested = new(vests.Format(time.RFC3339)), !time.Now().Before(vests)
		}
		created = append(created, made)
	}
	s.state.assignments = append(s.state.assignments, created...)
	return jsonAnswer(http.StatusOK, created)
}

func (s *Server) listAssignments(c *call) answer {
	return list(slices.DeleteFunc(slices.Clone(s.state.assignments), func(a *assignment) bool {
		return a.asset != c.param("assetUuid")
	}))
}

func (s *Server) readAssignment(c *call) answer {
	return one(s.state.assignments, func(a *assignment) bool { return a.is(c) })
}

// assignment is the one that a path names, or nil.
func (s *Server) assignment(c *call) *assignment {
	return first(s.state.assignments, func(a *assignment) bool { return a.is(c) })
}

func assignmentsOf(st *state) *[]*assignment { return &st.assignments }

func (a *assignment) is(c *call) bool {
	return a.asset == c.param("assetUuid") && a.ID == c.number("assignmentId")
}

// An assignment that is locked is not ready for a distribution.
func (a *assignment) lock(*call)   { a.ReadyForDistribution = false }
func (a *assignment) unlock(*call) { a.ReadyForDistribution = true }

type distribution struct {
	UUID         string        `json:"distribution_uuid"`
	Status       string        `json:"distribution_status"`
	Transactions []transaction `json:"transactions"`

	asset string
}

type transaction struct {
	Txid              string   `json:"txid"`
	Status            string   `json:"transaction_status"`
	ConfirmedDatetime string   `json:"confirmed_datetime"`
	Assignments       []payout `json:"assignments"`
}

type payout struct {
	RegisteredUser int   `json:"registered_user"`
	Amount         int64 `json:"amount"`
	Vout           int   `json:"vout"`
}

// createDistribution takes the assignments that are ready. With none it still
// answers 200, without a distribution_uuid, as AMP does. That counts as
// performed: a second call in a row shows in the log though it finds nothing.
func (s *Server) createDistribution(c *call) answer {
	asset := c.param("assetUuid")
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
	d := &distribution{UUID: uuid(s.state.nextID()), Status: "UNCONFIRMED", Transactions: []transaction{}, asset: asset}
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
		return d.asset != c.param("assetUuid") || d.Status != "CONFIRMED"
	}))
}

func (s *Server) readDistribution(c *call) answer {
	return one(s.state.distributions, func(d *distribution) bool { return d.is(c) })
}

// confirmDistribution may be sent again: the second time changes nothing.
func (s *Server) confirmDistribution(c *call) answer {
	d := first(s.state.distributions, func(d *distribution) bool { return d.is(c) })
	if d == nil {
		return jsonAnswer(http.StatusOK, distribution{UUID: c.param("distributionUuid"), Status: "CONFIRMED", Transactions: []transaction{}})
	}
	if d.Status == "CONFIRMED" {
		return jsonAnswer(http.StatusOK, d)
	}
	d.Status = "CONFIRMED"
	paid := transaction{Txid: hex64(s.state.nextID()), Status: "CONFIRMED", ConfirmedDatetime: now(), Assignments: []payout{}}
	for _, a := range s.state.assignments {
		if a.in(d) {
			a.IsDistributed = true
			paid.Assignments = append(paid.Assignments, payout{a.RegisteredUser, a.Amount, len(paid.Assignments)})
		}
	}
	d.Transactions = append(d.Transactions, paid)
	return jsonAnswer(http.StatusOK, d)
}

// cancelDistribution ends one that is not confirmed, and leaves its assignments to the
// next one.
func (s *Server) cancelDistribution(c *call) answer {
	d := first(s.state.distributions, func(d *distribution) bool { return d.is(c) })
	if d != nil && d.Status == "CONFIRMED" {
		return detail(http.StatusBadRequest, "Malformed request.")
	}
	if d != nil {
		s.state.distributions = without(s.state.distributions, d)
		for _, a := range s.state.assignments {
			if a.in(d) {
				a.DistributionUUID, a.ReceivingAddress = nil, nil
			}
		}
	}
	return rawAnswer(http.StatusOK, "application/json", []byte("{}"))
}

func (d *distribution) is(c *call) bool {
	return d.asset == c.param("assetUuid") && d.UUID == c.param("distributionUuid")
}

// in reports whether an assignment is in a distribution.
func (a *assignment) in(d *distribution) bool {
	return a.DistributionUUID != nil && *a.DistributionUUID == d.UUID
}
