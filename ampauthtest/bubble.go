package ampauthtest

import (
	"context"
	"errors"
	"net"
	"time"
)

// inBubble goes by the clock, which begins in 2000 in each testing/synctest bubble. On a
// socket it would stand still.
func inBubble() bool { return time.Now().Year() < 2010 }

// otherSide says what is wrong if the server was made in a bubble and the caller is
// outside, or the other way round; "" is nothing. One would wait for the other for ever.
func (s *Server) otherSide() string {
	switch in := inBubble(); {
	case in == s.bubble:
		return ""
	case in:
		return "the Server was made outside of this testing/synctest bubble: call NewServer in the bubble, with its t"
	default:
		return "the Server was made in a testing/synctest bubble, and cannot be reached from outside"
	}
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// fromItsOwnSide is dial for those on the side of the server.
func (s *Server) fromItsOwnSide(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		wrong := s.otherSide()
		if wrong == "" {
			return dial(ctx, network, address)
		}
		if !s.isOver() {
			s.refuse("%s", wrong)
		}
		return nil, errors.New("ampauthtest: " + wrong)
	}
}
