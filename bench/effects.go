package bench

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

// A step is what a server does with a POST that it has performed.
type step string

const (
	succeed step = "201"
	fail    step = "500"
	cut     step = "reset"
)

// effects counts how often a server performs one POST.
func effects(o Options) (Section, error) {
	contestants := []layer{
		{"ampauth", ampauthRetry},
		{"go-retryablehttp", retryablehttpRetry},
		{"failsafe-go", failsafeRetry},
		{"rehttp", rehttpRetry},
		{"rehttp, as in its example", rehttpExample},
		{"azcore", azureRetry},
		{"net/http alone", func(s setup) sender { return s.Base.RoundTrip }},
	}
	scripts := [][]step{
		{fail, cut, succeed},
		{fail, fail, fail},
		{cut, cut, cut},
	}
	heads := []string{"contestant"}
	for _, script := range scripts {
		heads = append(heads, "performed, then "+join(script), "the caller gets")
	}
	t := table("", heads...)
	most := 0
	for i, c := range contestants {
		row := []string{c.Name}
		for _, script := range scripts {
			n, end := perform(c, script)
			row = append(row, fmt.Sprint(n), end)
			if i == 0 {
				most = max(most, n)
			}
		}
		t.add(row...)
		o.progress(i+1, len(contestants))
	}
	return Section{
		Text:   "How often a server performs one POST /assets/issue, when it performs each that it gets and then answers, or breaks the connection, as the script says. Three attempts each. go-retryablehttp, failsafe-go and azcore repeat what they repeat by default, whatever the method; a user can write another rule (CheckRetry, AbortIf, ShouldRetry). rehttp has no default: it repeats here what the others repeat, and in a second row what its example does, which looks at no status.",
		Tables: []Table{t},
		Goals:  []Goal{counted("effects of one mutation", "itself", "at most 1", fmt.Sprint(most), most == 1)},
	}, nil
}

func join(script []step) string {
	words := make([]string, len(script))
	for i, s := range script {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}

// perform sends one POST to a server that follows the script, and returns how often
// it was performed and what the caller got.
func perform(c layer, script []step) (effects int, end string) {
	var performed atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := int(performed.Add(1))
		switch script[min(n, len(script))-1] {
		case cut:
			reset(w)
		case fail:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer server.Close()
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	s := setup{Base: base, URL: server.URL + "/api", BaseDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond}
	resp, err := c.Over(s.withDefaults())(post(s.URL+"/assets/issue", 1<<10).again())
	switch {
	case errors.Is(err, ampauth.ErrAmbiguous):
		end = "ErrAmbiguous"
	case err != nil:
		end = "an error"
	default:
		_ = resp.Body.Close()
		end = fmt.Sprint(resp.StatusCode)
	}
	return int(performed.Load()), end
}
