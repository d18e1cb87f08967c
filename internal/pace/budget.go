package pace

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Budget bounds how far retries may run ahead of successes. The zero value is
// full. It counts what was spent, in tenths, so that its size can be a setting.
type Budget struct {
	spent atomic.Int64 // tenths of a retry; only Take raises it

	mu       sync.Mutex // guards refilled and the raising of spent
	refilled time.Time
}

const (
	retryCost     = 10
	successRefund = 1
	refillEvery   = 10 * time.Second // one whole retry
)

// Take spends one retry, if there is one left of size.
func (b *Budget) Take(size int) bool {
	if size < 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	steps := int64(now.Sub(b.refilled) / refillEvery)
	b.giveBack(steps * retryCost)
	if b.spent.Load() == 0 {
		b.refilled = now // what is left of the last step is not saved up
	} else {
		b.refilled = b.refilled.Add(time.Duration(steps) * refillEvery)
	}
	if (b.spent.Load()+retryCost-1)/retryCost >= int64(size) {
		return false
	}
	b.spent.Add(retryCost)
	return true
}

// Success gives a little back. While nothing is spent it writes nothing.
func (b *Budget) Success() {
	if b.spent.Load() > 0 {
		b.giveBack(successRefund)
	}
}

func (b *Budget) giveBack(n int64) {
	for {
		old := b.spent.Load()
		if old <= 0 || b.spent.CompareAndSwap(old, max(old-n, 0)) {
			return
		}
	}
}
