package ampauth

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Calls that fail at the same time have met the same fault.
func TestFaultsAtTheSameTimeAreOneRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, down := new(guardedStore), errors.New("down")
		first, _ := s.begin(callLoad)
		second, _ := s.begin(callLoad)
		s.note(first, down, "down")
		time.Sleep(500 * time.Millisecond)
		s.note(second, down, "down")
		time.Sleep(500 * time.Millisecond)
		third, ok := s.begin(callLoad)
		if !ok {
			t.Fatal("the store rests for longer than a second")
		}
		s.note(third, down, "down")
		time.Sleep(2*time.Second - 1)
		if _, ok := s.begin(callLoad); ok {
			t.Error("the next fault did not double the rest")
		}
	})
}
