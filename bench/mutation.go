package bench

import (
	"fmt"
	"net/http"
)

// mutations measures what a mutation costs on connections that are there already, when
// all send it over HTTP/1.1, in clear and over TLS.
func mutations(o Options) (Section, error) {
	const body = 1 << 10
	rounds, n, done := pick(o, 25, 3), pick(o, 1000, 64), 0
	tick := func() {
		done++
		o.progress(done, 4*rounds)
	}
	section := Section{Text: fmt.Sprintf("A POST of 1 KiB that may not be repeated, client and server in one process. CPU in all is that of both (getrusage, user and system); a quotient is formed within a round. Over TLS the server speaks HTTP/2 and HTTP/1.1: ampauth finds HTTP/1.1 for its mutations by itself, and the others are told to speak nothing else, but for the last row. Before each turn everybody sends some that are not measured, so that the connections are there. Rounds: %d, of %d mutations.", rounds, n)}
	for _, secure := range []bool{false, true} {
		name := "HTTP/1.1"
		contestants := []layer{
			{"bare transport", overHTTP1(bareTransport)},
			{"ampauth", ampauthStack},
			{cheapestPair.Name, overHTTP1(cheapestPair.Over)},
		}
		if secure {
			name = "HTTP/1.1 over TLS"
			contestants = append(contestants, layer{cheapestPair.Name + ", HTTP/2", cheapestPair.Over})
		}
		t := table("**"+name+"**", "contestant", "CPU in all, 1 caller", "64 callers", "CPU in all, ampauth ÷ it, 1 caller", "64 callers", "mutations per second, 1 caller", "64 callers")
		var byCallers [2][]loopbackSample
		for i, callers := range []int{1, 64} {
			samples, err := loopbackRounds(contestants, exchange{secure, body, callers, n}, rounds, tick)
			if err != nil {
				return Section{}, err
			}
			byCallers[i] = samples
			section.Goals = append(section.Goals, atMost(fmt.Sprintf("mutation, %s, callers: %d, CPU in all", name, callers),
				cheapestPair.Name+", "+bothTimeout, 1.15, ratio(samples[1].cpu, samples[2].cpu), asRatio))
		}
		one, many := byCallers[0], byCallers[1]
		for i, c := range contestants {
			row := []string{c.Name, asUs(estimateOf(one[i].cpu)), asUs(estimateOf(many[i].cpu)), "", "", asCount(median(one[i].rate)), asCount(median(many[i].rate))}
			if i != 1 {
				row[3], row[4] = asRatio(ratio(one[1].cpu, one[i].cpu)), asRatio(ratio(many[1].cpu, many[i].cpu))
			}
			t.add(row...)
		}
		section.Tables = append(section.Tables, t)
	}
	return section, nil
}

// overHTTP1 puts a layer over a transport that speaks nothing else.
func overHTTP1(layer func(setup) sender) func(setup) sender {
	return func(s setup) sender {
		s.Base = onlyHTTP1(s.Base.(*http.Transport))
		return layer(s)
	}
}
