package fakeamp

import (
	"encoding/json"
	"net/http"
	"time"
)

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

	IssuerAuthorizationEndpoint *string `json:"issuer_authorization_endpoint"`
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

	IssuerAuthorizationEndpoint *string `json:"issuer_authorization_endpoint"`

	issuance       assetTransaction
	issued         int64
	reissuances    []reissuance
	burned         int64
	reissue, burn  int64 // asked for and not confirmed; 0 is none
	treasury       []string
	reissueAddress string
}

type reissuance struct {
	Txid               string `json:"txid"`
	Vout               int    `json:"vout"`
	DestinationAddress string `json:"destination_address"`
	ReissuanceAmount   int64  `json:"reissuance_amount"`
	ConfirmedInBlock   string `json:"confirmed_in_block"`
	Created            string `json:"created"`
}

func (s *Server) issueAsset(c *call) answer {
	var req issuance
	if json.Unmarshal(c.body, &req) != nil {
		return notAnObject()
	}
	n := s.state.nextID()
	a := &asset{
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
		issued:             req.Amount,
		reissueAddress:     req.ReissuanceAddress,

		IssuerAuthorizationEndpoint: req.IssuerAuthorizationEndpoint,
	}
	if req.DestinationAddress != "" {
		a.treasury = []string{req.DestinationAddress}
	}
	var reissuanceVout *int
	if req.IsReissuable {
		reissuanceVout = new(1)
		a.ReissuanceTokenID = new(hex64(s.state.nextID()))
	}
	a.issuance = newTransaction(hex64(s.state.nextID()))
	a.issuance.IsIssuance = true
	s.state.assets = append(s.state.assets, a)
	return jsonAnswer(http.StatusCreated, struct {
		issuance
		AssetUUID         string  `json:"asset_uuid"`
		AssetID           string  `json:"asset_id"`
		ReissuanceTokenID *string `json:"reissuance_token_id"`
		Txid              string  `json:"txid"`
		Vin               int     `json:"vin"`
		AssetVout         int     `json:"asset_vout"`
		ReissuanceVout    *int    `json:"reissuance_vout"`
	}{issuance: req, AssetUUID: a.AssetUUID, AssetID: a.AssetID, ReissuanceTokenID: a.ReissuanceTokenID, Txid: a.issuance.Txid, ReissuanceVout: reissuanceVout})
}

func (s *Server) listAssets(*call) answer { return list(s.state.assets) }

func (s *Server) readAsset(c *call) answer {
	return one(s.state.assets, func(a *asset) bool { return a.AssetUUID == c.param("assetUuid") })
}

// asset is the one that a path names, or nil.
func (s *Server) asset(c *call) *asset {
	return first(s.state.assets, func(a *asset) bool { return a.AssetUUID == c.param("assetUuid") })
}

func assetsOf(st *state) *[]*asset { return &st.assets }

func (a *asset) register(*call)  { a.IsRegistered = true }
func (a *asset) authorize(*call) { a.IsAuthorized = true }
func (a *asset) lock(*call)      { a.IsLocked = true }
func (a *asset) unlock(*call)    { a.IsLocked = false }
func (a *asset) keep(*call)      {}

func (s *Server) assetSummary(c *call) answer {
	var sum struct {
		Issued      int64 `json:"issued"`
		Reissued    int64 `json:"reissued"`
		Assigned    int64 `json:"assigned"`
		Distributed int64 `json:"distributed"`
		Burned      int64 `json:"burned"`
		Blacklisted int64 `json:"blacklisted"`
	}
	if a := s.asset(c); a != nil {
		sum.Issued, sum.Burned = a.issued, a.burned
		for _, r := range a.reissuances {
			sum.Reissued += r.ReissuanceAmount
		}
	}
	for _, a := range s.state.assignments {
		switch {
		case a.asset != c.param("assetUuid"):
		case a.IsDistributed:
			sum.Distributed += a.Amount
		default:
			sum.Assigned += a.Amount
		}
	}
	return jsonAnswer(http.StatusOK, sum)
}

// An issuer's node carries out what is requested, and its client script confirms that.
// Until then there is nothing to read of a request.

func (s *Server) requestReissuance(c *call) answer {
	var req struct {
		Amount int64 `json:"amount_to_reissue"`
	}
	if json.Unmarshal(c.body, &req) != nil {
		return notAnObject()
	}
	if a := s.asset(c); a != nil {
		a.reissue = req.Amount
	}
	return s.command(c, "reissue", "reissuance_utxos", req.Amount)
}

func (s *Server) requestBurn(c *call) answer {
	var req struct {
		Amount int64 `json:"amount"`
	}
	if json.Unmarshal(c.body, &req) != nil {
		return notAnObject()
	}
	if a := s.asset(c); a != nil {
		a.burn = req.Amount
	}
	return s.command(c, "burn", "utxos", req.Amount)
}

// command is what the client script reads.
func (s *Server) command(c *call, name, utxos string, amount int64) answer {
	fields := map[string]any{
		"command":                             name,
		"min_supported_client_script_version": 2,
		"asset_uuid":                          c.param("assetUuid"),
		"amount":                              amount,
		utxos:                                 []any{},
	}
	if a := s.asset(c); a != nil {
		fields["asset_id"] = a.AssetID
	}
	return jsonAnswer(http.StatusOK, fields)
}

// confirmReissuance may be sent again: the second time changes nothing.
func (s *Server) confirmReissuance(c *call) answer {
	confirmed := reissuance{Txid: txid}
	if a := s.asset(c); a != nil {
		if a.reissue != 0 {
			a.reissuances = append(a.reissuances, reissuance{
				Txid:               hex64(s.state.nextID()),
				DestinationAddress: a.reissueAddress,
				ReissuanceAmount:   a.reissue,
				Created:            now(),
			})
			a.reissue = 0
		}
		if n := len(a.reissuances); n > 0 {
			confirmed = a.reissuances[n-1]
		}
	}
	return jsonAnswer(http.StatusOK, struct {
		Txid   string `json:"txid"`
		Vin    int    `json:"vin"`
		Amount int64  `json:"reissuance_amount"`
	}{confirmed.Txid, 0, confirmed.ReissuanceAmount})
}

// confirmBurn may be sent again as well.
func (a *asset) confirmBurn(*call) {
	a.burned += a.burn
	a.burn = 0
}

func (s *Server) listReissuances(c *call) answer {
	if a := s.asset(c); a != nil {
		return list(a.reissuances)
	}
	return list[reissuance](nil)
}

// An assetTransaction is one of an asset's, whatever it does.
type assetTransaction struct {
	Txid           string `json:"txid"`
	Datetime       string `json:"datetime"`
	Blockheight    int    `json:"blockheight"`
	IsIssuance     bool   `json:"is_issuance"`
	IsReissuance   bool   `json:"is_reissuance"`
	IsDistribution bool   `json:"is_distribution"`
	Inputs         []any  `json:"inputs"`
	Outputs        []any  `json:"outputs"`
	UnblindedURL   string `json:"unblinded_url"`
}

func newTransaction(txid string) assetTransaction {
	return assetTransaction{Txid: txid, Datetime: now(), Blockheight: 1, Inputs: []any{}, Outputs: []any{}}
}

// now is the time as DRF writes it.
func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

func (s *Server) listTransactions(c *call) answer {
	a := s.asset(c)
	if a == nil {
		return list[assetTransaction](nil)
	}
	all := []assetTransaction{a.issuance}
	for _, r := range a.reissuances {
		tx := newTransaction(r.Txid)
		tx.Datetime, tx.IsReissuance = r.Created, true
		all = append(all, tx)
	}
	for _, d := range s.state.distributions {
		if d.asset != a.AssetUUID {
			continue
		}
		for _, paid := range d.Transactions {
			tx := newTransaction(paid.Txid)
			tx.Datetime, tx.IsDistribution = paid.ConfirmedDatetime, true
			all = append(all, tx)
		}
	}
	return list(all)
}

func (s *Server) listTreasury(c *call) answer {
	if a := s.asset(c); a != nil {
		return list(a.treasury)
	}
	return list[string](nil)
}

func (a *asset) addTreasury(c *call) {
	addresses, _ := c.texts()
	for _, address := range addresses {
		a.treasury = with(a.treasury, address)
	}
}

func (a *asset) removeTreasury(c *call) {
	addresses, _ := c.texts()
	for _, address := range addresses {
		a.treasury = without(a.treasury, address)
	}
}
