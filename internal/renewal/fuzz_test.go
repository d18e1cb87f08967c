package renewal

import "testing"

// FuzzMachine plays longer sequences out of more letters: the first byte is the life of
// the tokens, each other one a letter.
func FuzzMachine(f *testing.F) {
	for kind := range byte(len(lives)) {
		f.Add([]byte{kind, byte(somebodyAsks), byte(loginBringsNew), byte(acceptedAtA), byte(refusedAtA), byte(loginBringsNew)})
		f.Add([]byte{kind, byte(somebodyAsks), byte(credentialsRefused), byte(somebodyAsks), byte(nextLimit), byte(somebodyAsks), byte(loginFails)})
		always := []byte{kind, byte(somebodyAsks), byte(loginBringsNew)} // one place always refuses
		for range 20 {
			always = append(always, byte(acceptedAtB), byte(refusedAtA), byte(loginBringsNew), byte(refusedAtA), byte(nextLimit))
		}
		f.Add(always)
		nowhere := []byte{kind, byte(somebodyAsks), byte(loginBringsNew)}
		for range 30 {
			nowhere = append(nowhere, byte(refusedNowhere), byte(loginBringsNew), byte(sixMinutes))
		}
		f.Add(nowhere)
		outage := []byte{kind, byte(somebodyAsks), byte(loginBringsNew), byte(nextLimit)}
		for range 20 {
			outage = append(outage, byte(somebodyAsks), byte(loginFails), byte(oneSecond), byte(refusedAtC), byte(nextLimit), byte(proxyRefuses), byte(olderRefused))
		}
		f.Add(outage)
		f.Add([]byte{kind, byte(somebodyAsks), byte(loginBringsNew), byte(nextLimit), byte(somebodyAsks), byte(credentialsRefused), byte(nextLimit),
			byte(somebodyAsks), byte(othersPauseLong), byte(refusedAtA), byte(nextLimit), byte(somebodyAsks), byte(othersPauseLong), byte(loginBringsNew)})
		f.Add([]byte{kind, byte(somebodyAsks), byte(loginBringsNew), byte(refusedAtA), byte(loginBringsSame), byte(refusedAtA), byte(loginBringsSame),
			byte(acceptedAtC), byte(refusedAtC), byte(loginFailsAsking), byte(refreshNotThere), byte(sixMinutes), byte(somebodyAsks), byte(loginBringsNew)})
	}
	f.Fuzz(func(t *testing.T, sequence []byte) {
		if len(sequence) == 0 {
			return
		}
		p := newPlayer(lives[int(sequence[0])%len(lives)].life)
		var path []letter
		for _, b := range sequence[1:min(len(sequence), 400)] {
			l := letter(b) % anyLetter
			did, ok := p.step(l)
			if !ok {
				continue
			}
			path = append(path, l)
			for _, broken := range p.check(did) {
				t.Fatalf("%q does not hold: %v", broken, path)
			}
		}
	})
}
