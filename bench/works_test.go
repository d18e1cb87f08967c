package bench

import (
	"testing"
	"time"
)

func TestMutationHasOneEffectWhateverTheServerDoes(t *testing.T) {
	ours := Layer{"ampauth", ampauthRetry}
	for _, script := range [][]step{{fail, cut, succeed}, {fail, fail, fail}, {cut, cut, cut}, {cut, succeed}} {
		if n, end := perform(ours, script); n != 1 || end == "201" {
			t.Errorf("%s: performed %d times, the caller got %s", join(script), n, end)
		}
	}
}

func TestPeersRepeatAMutation(t *testing.T) {
	for _, peer := range retryLayers[1:] {
		if n, _ := perform(peer, []step{fail, cut, succeed}); n != attempts {
			t.Errorf("%s: performed %d times; the table says otherwise", peer.Name, n)
		}
	}
}

func TestHerdMakesOneLogin(t *testing.T) {
	const callers = 2000
	for _, cold := range []bool{true, false} {
		h, err := stampede(Layer{"ampauth", ampauthStack}, callers, 20*time.Millisecond, cold)
		if err != nil || h.logins != 1 || h.served != callers {
			t.Errorf("cold %t: %d logins, %d served, %v", cold, h.logins, h.served, err)
		}
	}
}
