package ampauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
)

// A TokenStore keeps tokens between runs, and shares them between processes that
// use the same account. It is an aid, never a condition: a [TokenManager] takes
// any fault of it for a miss, says so in its log and by an [EventStore], and goes on from
// memory. A call that failed is not made again for a second, twice as long each time, at
// most 30 s, until it has worked; while Load fails, so are all others. One
// that is also a [Locker] lets processes log in one at a time. Where the lock cannot be
// had the login is made without, and saved if nothing is stored, or only what has ended.
//
// [EncodeToken] and [DecodeToken] are all it takes to write one, and
// storetest.Run says whether it keeps to this contract. Its methods must be safe
// for concurrent use, end when ctx does, and show no token in an error.
type TokenStore interface {
	// Load returns the token stored for k, or an error that Is ErrNoToken if there
	// is none that can be trusted.
	Load(ctx context.Context, k StoreKey) (Token, error)

	// Save stores the token for k in place of any other. A Load beside it returns
	// the old token or the new one, whole. Where the lock is a lease, the error Is
	// ErrSuperseded, and nothing is saved, if somebody else has had the lock since the
	// caller took it; or if the caller has not taken it, and there is a token.
	Save(ctx context.Context, k StoreKey, t Token) error

	// DeleteIf removes the token of k if it is rejected, and leaves any other, which
	// somebody else may just have stored. To find none is no error.
	DeleteIf(ctx context.Context, k StoreKey, rejected Secret) error
}

// A Locker is a [TokenStore] with a lock for each key, which at most one holder
// has, in this process or another. The lock is for the login alone: no other
// method waits for it. When its holder dies it is free, at once or, if it is a lease that
// the holder renews, within its lease; one who sleeps longer than the lease has lost it,
// and learns that from Save. The unlock that comes without an error is not nil; it waits
// for nobody, but may take one round trip, and may be called from any goroutine and more
// than once.
type Locker interface {
	// Lock waits for the lock until ctx ends. The lock outlives ctx.
	Lock(ctx context.Context, k StoreKey) (unlock func(), err error)

	// TryLock does not wait: ok is false if somebody else has the lock.
	TryLock(ctx context.Context, k StoreKey) (unlock func(), ok bool, err error)
}

// A Pauser is a [TokenStore] by which those who share an account pause together when its
// credentials are refused, so that they do not lock the account. Whose own credentials
// were not refused yet may try once all the same: they may be others.
type Pauser interface {
	// Pause begins a pause of d. One that ends later stays.
	Pause(ctx context.Context, k StoreKey, d time.Duration) error

	// Paused returns how long the pause goes on, 0 if there is none.
	Paused(ctx context.Context, k StoreKey) (left time.Duration, err error)
}

// A Watcher is a [TokenStore] that tells of tokens that were saved, so that a
// [TokenManager] takes them before it needs them: also one whose own token somebody else
// has just ended by a refresh.
type Watcher interface {
	// Watch calls changed once it listens, after each Save of k, and each time that it
	// listens again after it may have missed one, until ctx ends or it cannot go on.
	// changed does not block. A TokenManager calls Watch from its first token until Close, and
	// again, after a rest, when it has returned.
	Watch(ctx context.Context, k StoreKey, changed func()) error
}

// ErrSuperseded is what the error of [TokenStore.Save] Is when the lock that the caller
// took has ended and somebody else has had it since, or when it had none and there is a
// token: nothing was saved. Who meets it takes what is stored.
var ErrSuperseded = errors.New("ampauth: somebody else has had the lock, or saved a token: nothing was saved")

// ErrNoToken is what the error of [TokenStore.Load] Is when there is no token for
// the key, or none that can be trusted.
var ErrNoToken = errors.New("ampauth: no stored token")

// A miss is an ErrNoToken with the reason, in words that show nothing of what was
// found.
type miss string

// errTokenEnded is the one miss with a reason that is nobody's fault.
const errTokenEnded = miss("the token has ended")

// isFault reports whether err tells of something that is wrong with the store or
// what is in it.
func isFault(err error) bool {
	if reason, ok := errors.AsType[miss](err); ok {
		return reason != errTokenEnded
	}
	return err != nil && !errors.Is(err, ErrNoToken) && !errors.Is(err, ErrSuperseded)
}

func (m miss) Error() string        { return ErrNoToken.Error() + ": " + string(m) }
func (m miss) Is(target error) bool { return target == ErrNoToken }

// A StoreKey says whose token it is: an account on a server. It is a hash of both,
// prints as one, and can be the key of a map.
type StoreKey struct{ sum [sha256.Size]byte }

// NewStoreKey returns the key of a user on the server at baseURL. Spellings of one
// URL (case of the host, default port, final slash) give the same key. A faulty
// URL or an empty user name is an error that Is [ErrConfig].
func NewStoreKey(baseURL, username string) (StoreKey, error) {
	canonical, rule := origin.Canonical(baseURL)
	switch {
	case rule != "":
		return StoreKey{}, configFault("BaseURL", envBaseURL, rule)
	case strings.TrimSpace(username) == "":
		return StoreKey{}, configFault("Credentials.Username", envUsername, "is required")
	}
	return StoreKey{sha256.Sum256([]byte("ampauth token\x00" + canonical + "\x00" + username))}, nil
}

// String returns the key as 32 hexadecimal digits: a name for a file or a row.
func (k StoreKey) String() string { return hex.EncodeToString(k.sum[:16]) }

// Format writes what String returns, for every verb.
func (k StoreKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// The record of a token is lines of text, each with a name and a value, in this
// order and no other form; the last line break tells a whole record from a cut one. Its
// times are Unix microseconds, which tell two tokens of one second apart. In version 1
// they were seconds.
const (
	recordName   = "ampauth-token "
	recordHead   = recordName + "2\n"
	recordHead1  = recordName + "1\n"
	maxRecord    = 16 << 10
	clockSkew    = 5 * time.Minute // how far ahead the clock of another machine may be
	recordFormat = recordHead + "binding %s\nobtained %d\nexpires %d\ntoken "

	maxDigits1 = 12 // of seconds: in the year 33658 it is time for another version
	maxDigits  = maxDigits1 + 6
)

// EncodeToken returns the record of a token for a [TokenStore]. It holds the token
// in clear: keep it from others, and wipe it when it is written. [SealToken] encrypts it.
func EncodeToken(k StoreKey, t Token) ([]byte, error) {
	obtained, expires := unixOrZero(t.ObtainedAt), unixOrZero(t.ExpiresAt)
	var record []byte
	err := t.Value.Expose(func(value []byte) error {
		if !headerSafe(value) {
			return &Error{Op: "store", Kind: ErrSerialization, Outcome: NotSent, Err: errTokenShape}
		}
		head := fmt.Appendf(nil, recordFormat, hex.EncodeToString(k.sum[:]), obtained, expires)
		record = make([]byte, 0, len(head)+len(value)+1) // no copies left behind by growing
		record = append(append(append(record, head...), value...), '\n')
		return nil
	})
	return record, err
}

// DecodeToken reads the record of a token. The error Is [ErrNoToken], and says why,
// unless the record is whole, of a known version, made for k, and holds a token that
// has not ended. The record is not changed; wipe it.
func DecodeToken(k StoreKey, record []byte) (Token, error) {
	if len(record) > maxRecord {
		return Token{}, miss("the record is too large")
	}
	if !bytes.HasPrefix(record, []byte(recordName)) {
		return Token{}, miss("the record is malformed")
	}
	rest, ok := bytes.CutPrefix(record, []byte(recordHead))
	moment := micros
	if !ok {
		moment = seconds
		if rest, ok = bytes.CutPrefix(record, []byte(recordHead1)); !ok {
			return Token{}, miss("the record is of another version")
		}
	}
	var fields [4][]byte
	for i, name := range []string{"binding ", "obtained ", "expires ", "token "} {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		value, named := bytes.CutPrefix(line, []byte(name))
		if !ok || !named {
			return Token{}, miss("the record is malformed")
		}
		fields[i], rest = value, after
	}
	obtained, okObtained := moment(fields[1])
	expires, okExpires := moment(fields[2])
	value := fields[3]
	now := time.Now()
	switch {
	case len(rest) > 0 || !okObtained || !okExpires || !headerSafe(value):
		return Token{}, miss("the record is malformed")
	case string(fields[0]) != hex.EncodeToString(k.sum[:]):
		return Token{}, miss("the record is of another account or server")
	case obtained.Unix() > now.Add(clockSkew).Unix():
		return Token{}, miss("the record is from the future")
	case !expires.IsZero() && (!expires.After(now) || !expires.After(obtained)):
		return Token{}, errTokenEnded
	}
	return Token{Value: NewSecret(bytes.Clone(value)), ObtainedAt: obtained, ExpiresAt: expires}, nil
}

func unixOrZero(t time.Time) int64 { // 0 for a time that is not set
	return max(t.UnixMicro(), 0)
}

// micros reads Unix microseconds as EncodeToken writes them, and seconds what it wrote in
// version 1. Zero is a time that is not set.
func micros(b []byte) (time.Time, bool)  { return readTime(b, maxDigits, time.UnixMicro) }
func seconds(b []byte) (time.Time, bool) { return readTime(b, maxDigits1, unixSeconds) }

func unixSeconds(n int64) time.Time { return time.Unix(n, 0) }

func readTime(b []byte, digits int, of func(int64) time.Time) (t time.Time, ok bool) {
	if len(b) > digits {
		return t, false
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != string(b) {
		return t, false
	}
	if n > 0 {
		t = of(n)
	}
	return t, true
}

// storeFault returns the error of a store for its cause; nil if that is nil.
func storeFault(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: "store", Kind: ErrStore, Outcome: NotSent, Err: err}
}
