package redisstore

import "github.com/redis/go-redis/v9"

// Scripts run as one step. Each may be repeated, as the client does when an answer is
// lost, and then gives the same. KEYS are of one account.
var (
	// KEYS token, holder. ARGV record, milliseconds that it lives, the name under which the
	// lock was taken or "", the channel of those who watch. 0: not saved.
	save = redis.NewScript(`
local now = redis.call('GET', KEYS[1])
if now ~= ARGV[1] then
  if ARGV[3] == '' then
    if now then return 0 end
  else
    local last = redis.call('GET', KEYS[2])
    if last and last ~= ARGV[3] then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[4], '')
return 1`)

	// KEYS the key. ARGV what it must hold.
	deleteEqual = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`)

	// KEYS lock, holder. ARGV name, milliseconds of the lease, of the fence. 0: it is
	// somebody else's. One without an end, as a copy of Redis may leave it, is nobody's.
	take = redis.NewScript(`
local now = redis.call('GET', KEYS[1])
if now and now ~= ARGV[1] and redis.call('PTTL', KEYS[1]) >= 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1`)

	// KEYS lock. ARGV name, milliseconds. 0: it was lost.
	renew = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0`)

	// KEYS pause. ARGV milliseconds.
	pause = redis.NewScript(`
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) end
return 1`)
)
