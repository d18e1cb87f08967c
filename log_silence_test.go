package ampauth_test

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/ampauthtest"
)

// In a process of its own, as what is printed is everybody's.
func TestNothingIsPrintedUnlessALoggerIsGiven(t *testing.T) {
	if os.Getenv(childEnv) == "quiet" {
		haveTrouble(t)
		return
	}
	code, printed := runChild(t, "quiet", "-test.run=^"+t.Name()+"$")
	printed, _, _ = strings.Cut(printed, "coverage: ") // the last line of a run that is measured
	if code != 0 || printed != "PASS\n" {
		t.Errorf("it ended with %d, and printed:\n%s", code, printed)
	}
}

// haveTrouble is what a Logger would have a lot to say of.
func haveTrouble(t *testing.T) {
	const issue, list, login = "POST /assets/issue", "GET /assets", "POST /user/obtain_token"
	amp := ampauthtest.NewServer(t, ampauthtest.Options{})
	client := amp.Client()
	amp.Inject(
		ampauthtest.Fault{Route: list, Status: 503, Times: -1},
		ampauthtest.Fault{Route: issue, AfterIt: true, Reset: true},
		ampauthtest.Fault{Route: login, Status: 500},
	)
	resp, err := client.Get(amp.URL + "/assets")
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("%v, want 503", err)
	} else {
		_ = resp.Body.Close()
	}
	if _, err := client.Post(amp.URL+"/assets/issue", "application/json", strings.NewReader("{}")); !errors.Is(err, ampauth.ErrAmbiguous) {
		t.Errorf("%v, want ErrAmbiguous", err)
	}
	amp.Inject(ampauthtest.Fault{Route: login, Status: http.StatusBadRequest})
	amp.Revoke()
	if resp, err := client.Get(amp.URL + "/categories"); err == nil {
		_ = resp.Body.Close()
	}
}
