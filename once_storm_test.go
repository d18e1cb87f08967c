package ampauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/hostile"
)

const (
	// onceWireSettle is the Settle over real sockets, whose servers perform at once.
	onceWireSettle = time.Second
	sendField      = "X-Send" // has the number of the Send
)

// onceWire is a Once of a wireCall, and how it ended.
type onceWire struct {
	call  wireCall
	ended []time.Time // each Send
	read  time.Time   // when the last read began that told something
	err   error
}

// performOnce performs a call exactly once, which its faults do not make easy.
func (w *wireWorld) performOnce(call wireCall) *onceWire {
	o := &onceWire{call: call}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if call.leaves > 0 {
		defer time.AfterFunc(call.leaves, func() { cancel(errWireLeft) }).Stop()
	}
	client := w.Client
	if call.timed {
		client = w.timed
	}
	cfg := ampauth.RetryConfig{BaseDelay: 20 * time.Millisecond, MaxDelay: 100 * time.Millisecond}
	_, o.err = ampauth.Once(ctx, cfg, ampauth.Mutation[struct{}]{
		Settle: onceWireSettle,
		Send: func(ctx context.Context) (done struct{}, err error) {
			defer func() { o.ended = append(o.ended, time.Now()) }()
			req := call.request(ctx, w.server.URL()+"/api")
			req.Header.Set(sendField, strconv.Itoa(len(o.ended)))
			resp, err := client.Do(req)
			if err != nil {
				return done, err
			}
			defer resp.Body.Close()
			if err := ampauth.ResponseError(resp); err != nil {
				return done, err
			}
			_, err = io.CopyN(io.Discard, resp.Body, 100<<10)
			if err == io.EOF {
				err = nil
			}
			return done, err
		},
		Find: func(ctx context.Context) (done struct{}, ok bool, err error) {
			began := time.Now()
			defer func() {
				if err == nil {
					o.read = began
				}
			}()
			req, err := http.NewRequestWithContext(ctx, "GET", w.server.URL()+"/api/assets", nil)
			if err != nil {
				return done, false, err
			}
			req.Header.Set("X-Operation-Id", fmt.Sprint("find ", call.number))
			resp, err := w.Client.Do(req)
			if err != nil {
				return done, false, err
			}
			defer resp.Body.Close()
			if err := ampauth.ResponseError(resp); err != nil {
				return done, false, err
			}
			content, err := io.ReadAll(resp.Body)
			return done, string(content) == "it is there", err
		},
	})
	return o
}

// answerFind tells whether a call was performed, if nothing goes wrong.
func (w *wireWorld) answerFind(x hostile.Exchange) hostile.Step {
	text := "it is not there"
	if w.server.Effects(strings.TrimPrefix(x.ID, "find ")) > 0 {
		text = "it is there"
	}
	step := hostile.Step{Name: "find", Body: text}
	switch rand.IntN(10) {
	case 0:
		step.Status = 503
	case 1:
		step.Do = hostile.Reset
	case 2:
		step.Do = hostile.CutBody
	}
	return step
}

// A run has shown something once so many mutations were performed, and so many of these sent
// again. How long that takes depends on the machine.
const (
	enoughPerformed = 50
	enoughAgain     = 5
	onceWireRounds  = 10 // at most
)

// TestOncePerformsEachMutationOnceInAStorm is the same storm as TestStorm, over real sockets,
// with Once above each mutation, and reads that fail as well.
func TestOncePerformsEachMutationOnceInAStorm(t *testing.T) {
	takesLong(t, 8)
	seed := *stormSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	plan := func(n int) wireCall { return stormCall(seed, n) }
	worlds := make(map[string]*wireWorld)
	for name := range wireWorlds {
		worlds[name] = newWireWorld(t, name, plan)
		worlds[name].asked = worlds[name].answerFind
	}
	round := 10 * len(wireFaults)
	ends := make([]*onceWire, 0, round*onceWireRounds)
	// Twice as many, since the machine may have been too slow for some of them.
	for shown, again, spared := 0, 0, 0; len(ends) < cap(ends) && (shown < 2*enoughPerformed || again < 2*enoughAgain || spared == 0); {
		first := len(ends)
		ends = ends[:first+round]
		var next atomic.Int64
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				for i := int(next.Add(1)) - 1; i < round; i = int(next.Add(1)) - 1 {
					if call := plan(first + i); call.mutates {
						ends[first+i] = worlds[call.world].performOnce(call)
					}
				}
			})
		}
		callers.Wait()
		for _, o := range ends[first:] {
			switch {
			case o == nil:
			case o.err != nil && !errors.Is(o.err, ampauth.ErrAmbiguous) && !errors.Is(o.err, errWireLeft):
				spared++
			case o.err == nil && len(o.ended) > 1:
				again++
				fallthrough
			case o.err == nil:
				shown++
			}
		}
	}
	log := make(map[int][]hostile.Entry)
	for _, w := range worlds {
		w.end()
		arrived(w.server.Log(), log)
	}
	performed, again, spared, blind, left, slow := 0, 0, 0, 0, 0, 0
	for _, o := range ends {
		if o == nil {
			continue
		}
		var effects []hostile.Entry
		late := false
		for _, e := range log[o.call.number] {
			if !e.Performed {
				continue
			}
			effects = append(effects, e)
			send, err := strconv.Atoi(e.Header.Get(sendField))
			late = late || err == nil && send < len(o.ended) && e.At.After(o.ended[send].Add(onceWireSettle))
		}
		doubt := errors.Is(o.err, ampauth.ErrAmbiguous)
		wrong := ""
		switch {
		case late: // this machine was so slow that the server performed it after Settle
			slow++
			continue
		case len(effects) > 1:
			wrong = "performed more than once"
		case o.err == nil && len(effects) != 1:
			wrong = "success was reported of what was not performed"
		case errors.Is(o.err, errWireLeft):
			left++
			if !doubt && len(effects) > 0 {
				wrong = "performed, and the caller who left was told that it was not"
			}
		case doubt && o.read.After(o.ended[len(o.ended)-1].Add(onceWireSettle)):
			wrong = "nothing told what came of it, although a read did"
		case doubt:
			blind++
		case o.err != nil && len(effects) > 0:
			wrong = "performed, and the error says that it was not"
		case o.err != nil:
			spared++
		case len(o.ended) > 1:
			again++
			fallthrough
		default:
			performed++
		}
		if o.err != nil && tells(o.err.Error()) != "" && wrong == "" {
			if ours, ok := errors.AsType[*ampauth.Error](o.err); ok && tells(ours.Error()) != "" {
				wrong = "the error tells " + tells(ours.Error())
			}
		}
		if wrong != "" {
			t.Errorf("call %d, %s %s in the world %q: %s\nit ended after %d Sends in %v\nthe server's log has %v",
				o.call.number, o.call.method, o.call.path, o.call.world, wrong, len(o.ended), o.err, log[o.call.number])
		}
	}
	t.Logf("seed %d: %d performed, %d of them sent again; %d not performed, as told; %d in doubt, as no read succeeded; %d left; %d the machine was too slow for", seed, performed, again, spared, blind, left, slow)
	if performed < enoughPerformed || again < enoughAgain || spared == 0 {
		t.Error("the run proves nothing")
	}
}
