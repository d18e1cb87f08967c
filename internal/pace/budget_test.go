package pace

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// takes returns how many retries are given until one is not.
func (b *Budget) takes(size int) (n int) {
	for b.Take(size) {
		n++
	}
	return n
}

func TestBudgetGivesItsSizeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{0, 1, 2, 100} {
			var b Budget
			if n := b.takes(size); n != size || b.Take(size) {
				t.Errorf("a budget of %d gave %d", size, n)
			}
		}
	})
}

func TestBudgetBelowZeroNeverEnds(t *testing.T) {
	var b Budget
	for range 10_000 {
		if !b.Take(-1) {
			t.Fatal("it ended")
		}
	}
	if n := b.takes(3); n != 3 {
		t.Errorf("then one of 3 gave %d", n)
	}
}

func TestBudgetIsComparedWithTheSizeOfEachTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		for _, step := range []struct{ size, want int }{{3, 3}, {5, 2}, {2, 0}, {6, 1}} {
			if n := b.takes(step.size); n != step.want {
				t.Errorf("a size of %d gave %d more, want %d", step.size, n, step.want)
			}
		}
	})
}

func TestTenSuccessesGiveOneRetryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		b.takes(3)
		for i := range 20 {
			b.Success()
			if got, want := b.Take(3), i%10 == 9; got != want {
				t.Errorf("after %d successes a retry is given: %t, want %t", i+1, got, want)
			}
		}
	})
}

func TestSuccessesAreNotSavedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		for range 100 {
			b.Success()
		}
		if n := b.takes(2); n != 2 {
			t.Errorf("a full budget of 2 gave %d after successes", n)
		}
		for range 100 {
			b.Success()
		}
		if n := b.takes(2); n != 2 {
			t.Errorf("a budget of 2 gave %d after more successes than it needs", n)
		}
	})
}

func TestBudgetGetsOneRetryBackEveryTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		time.Sleep(time.Hour) // the clock starts with the first retry
		b.takes(4)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{
			{10*time.Second - 1, 0},
			{1, 1},
			{15 * time.Second, 1},
			{5 * time.Second, 1}, // the half from before counts
			{29 * time.Second, 2},
			{time.Second, 1},
			{40 * time.Second, 4},
		} {
			time.Sleep(step.after)
			if n := b.takes(4); n != step.want {
				t.Errorf("after another %v: %d, want %d", step.after, n, step.want)
			}
		}
	})
}

func TestBudgetIsFullAgainAfterALongQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		b.takes(4)
		time.Sleep(24*time.Hour + 5*time.Second)
		if n := b.takes(4); n != 4 {
			t.Errorf("after a day a budget of 4 gave %d", n)
		}
		time.Sleep(10*time.Second - 1) // of which the 5 s are no part
		if b.Take(4) {
			t.Error("not yet 10 s later one was given")
		}
	})
}

func TestBudgetNeverHoldsMoreThanItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		b.Take(4)
		b.Take(4)
		time.Sleep(40 * time.Second)
		if n := b.takes(4); n != 4 {
			t.Errorf("a budget of 4, of which 2 were spent, gave %d after 40 s", n)
		}
	})
}

func TestBudgetThatSuccessesFilledStartsItsClockAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		b.Take(1)
		for range 10 {
			b.Success()
		}
		time.Sleep(9 * time.Second)
		if !b.Take(1) {
			t.Error("none was given")
		}
		time.Sleep(9 * time.Second)
		if b.Take(1) {
			t.Error("one was given 9 s after the last")
		}
	})
}

// What is left of ten seconds counts only while something is spent.
func TestBudgetThatTimeFilledStartsItsClockAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		b.Take(4)
		time.Sleep(15 * time.Second) // full again since 5 s
		if n := b.takes(4); n != 4 {
			t.Fatalf("after 15 s a budget of 4 gave %d", n)
		}
		time.Sleep(10*time.Second - 1)
		if b.Take(4) {
			t.Error("not yet 10 s later one was given")
		}
		time.Sleep(time.Nanosecond)
		if !b.Take(4) {
			t.Error("10 s later none was given")
		}
	})
}

func TestBudgetUnderContentionGivesNoMoreThanItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		given := make(chan bool)
		for range 500 {
			go func() { given <- b.Take(100) }()
		}
		n := 0
		for range 500 {
			if <-given {
				n++
			}
		}
		if n != 100 {
			t.Errorf("%d retries were given, want 100", n)
		}
	})
}

func TestNoSuccessOfManyGoroutinesIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Budget
		b.takes(10_000)
		var succeeding sync.WaitGroup
		for range 4 {
			succeeding.Go(func() {
				for range 20_000 {
					b.Success()
				}
			})
		}
		succeeding.Wait()
		if n := b.takes(10_000); n != 8_000 {
			t.Errorf("80000 successes gave %d retries back, want 8000", n)
		}
	})
}
