package ampauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ampauth/ampauth"
)

func TestRecordHoldsATokenAndItsTimesToTheMicrosecond(t *testing.T) {
	obtained := time.Now().Add(-time.Hour)
	for _, test := range []struct {
		name  string
		token ampauth.Token
	}{
		{"with an end", ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ObtainedAt: obtained, ExpiresAt: obtained.Add(24 * time.Hour)}},
		{"without an end", ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ObtainedAt: obtained}},
		{"without a beginning", ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ExpiresAt: obtained.Add(24 * time.Hour)}},
		{"of one byte", ampauth.Token{Value: ampauth.SecretFromString("!")}},
		{"of 4096 bytes", ampauth.Token{Value: ampauth.SecretFromString(strings.Repeat("~", 4096)), ObtainedAt: obtained}},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := recordKey(t)
			got, err := ampauth.DecodeToken(k, encoded(t, k, test.token))
			if err != nil {
				t.Fatal(err)
			}
			if !got.Value.Equal(test.token.Value) {
				t.Error("another value came back")
			}
			same := func(a, b time.Time) bool {
				return a.IsZero() == b.IsZero() && (a.IsZero() || a.UnixMicro() == b.UnixMicro())
			}
			if !same(got.ObtainedAt, test.token.ObtainedAt) || !same(got.ExpiresAt, test.token.ExpiresAt) {
				t.Errorf("obtained %v, expires %v", got.ObtainedAt, got.ExpiresAt)
			}
		})
	}
}

// What an older version stored is still read, whatever sealed it.
func TestRecordOfVersion1IsRead(t *testing.T) {
	k, now := recordKey(t), time.Now()
	record := recordOf(bindingOf(t, k), now.Unix(), now.Unix()+60, canaryToken)
	sealer := newSealer(t, sealKey)
	sealed, err := sealer.Seal([]byte(record), []byte("ampauth-token 1\n"+bindingOf(t, k)))
	if err != nil {
		t.Fatal(err)
	}
	for name, load := range map[string]func() (ampauth.Token, error){
		"in clear": func() (ampauth.Token, error) { return ampauth.DecodeToken(k, []byte(record)) },
		"sealed": func() (ampauth.Token, error) {
			return ampauth.OpenToken(k, append([]byte("ampauth-sealed 1\n"), sealed...), sealer)
		},
	} {
		token, err := load()
		if err != nil || ampReveal(token.Value) != canaryToken || token.ObtainedAt.Unix() != now.Unix() || token.ExpiresAt.Unix() != now.Unix()+60 {
			t.Errorf("%s: %v, or another token", name, err)
		}
	}
}

func TestTokenThatNoHeaderCanCarryIsNotEncoded(t *testing.T) {
	for name, value := range map[string]string{"empty": "", "line break": canaryToken + "\nexpires 0", "too long": strings.Repeat("a", 4097)} {
		record, err := ampauth.EncodeToken(recordKey(t), ampauth.Token{Value: ampauth.SecretFromString(value)})
		if !errors.Is(err, ampauth.ErrSerialization) || record != nil {
			t.Errorf("%s: got %d bytes and the error %v", name, len(record), err)
		}
		if found := leaks(everythingErrorsSay(err)); found != nil {
			t.Errorf("%s: the error shows %v", name, found)
		}
	}
	destroyed := ampauth.SecretFromString(canaryToken)
	destroyed.Destroy()
	if record, err := ampauth.EncodeToken(recordKey(t), ampauth.Token{Value: destroyed}); !errors.Is(err, ampauth.ErrDestroyed) || record != nil {
		t.Errorf("destroyed: got %d bytes and the error %v", len(record), err)
	}
}

func TestRecordCutAnywhereIsAMiss(t *testing.T) {
	k := recordKey(t)
	record := encoded(t, k, canaryTokenValue())
	for n := range record {
		_, err := ampauth.DecodeToken(k, record[:n])
		wantMiss(t, err, map[bool]string{true: "the record is malformed", false: "the record is of another version"}[n < 14 || n > 15])
	}
}

func TestRecordWithAnotherByteAnywhereIsAMissOrAnotherToken(t *testing.T) {
	k, token := recordKey(t), canaryTokenValue()
	record := encoded(t, k, token)
	for i := range record {
		for _, b := range []byte{0, '\n', '\r', ' ', '7', 'x', 0xff} {
			changed := bytes.Clone(record)
			changed[i] = b
			if bytes.Equal(changed, record) {
				continue
			}
			got, err := ampauth.DecodeToken(k, changed)
			if err == nil && got.Value.Equal(token.Value) && got.ExpiresAt.UnixMicro() == token.ExpiresAt.UnixMicro() && got.ObtainedAt.UnixMicro() == token.ObtainedAt.UnixMicro() {
				t.Errorf("byte %d as %q makes no difference", i, b)
			}
			if err != nil && !errors.Is(err, ampauth.ErrNoToken) {
				t.Errorf("byte %d as %q: %v", i, b, err)
			}
		}
	}
}

// recordOf writes a record by hand, of version 1, whose times are seconds.
func recordOf(binding string, obtained, expires any, value string) string {
	return fmt.Sprintf("ampauth-token 1\nbinding %s\nobtained %v\nexpires %v\ntoken %s\n", binding, obtained, expires, value)
}

// bindingOf is the second line of a record, which is not exported otherwise.
func bindingOf(t testing.TB, k ampauth.StoreKey) string {
	t.Helper()
	lines := strings.Split(string(encoded(t, k, canaryTokenValue())), "\n")
	return strings.TrimPrefix(lines[1], "binding ")
}

func TestRecordThatIsNotExactlyOneIsAMiss(t *testing.T) {
	k := recordKey(t)
	binding := bindingOf(t, k)
	other := bindingOf(t, recordKeyOf(t, "https://amp.test/api", "another"))
	now := time.Now().Unix()
	good := recordOf(binding, now, now+60, canaryToken)
	if _, err := ampauth.DecodeToken(k, []byte(good)); err != nil {
		t.Fatalf("the record to vary: %v", err)
	}
	line := func(n int) string { return strings.SplitAfter(good, "\n")[n] }
	for _, test := range []struct{ name, record, reason string }{
		{"nothing", "", "the record is malformed"},
		{"JSON", `{"token":"` + canaryToken + `"}`, "the record is malformed"},
		{"deep nesting", strings.Repeat("[", 10000), "the record is malformed"},
		{"zero bytes", strings.Repeat("\x00", len(good)), "the record is malformed"},
		{"byte order mark", "\ufeff" + good, "the record is malformed"},
		{"line breaks of Windows", strings.ReplaceAll(good, "\n", "\r\n"), "the record is of another version"},
		{"10 MiB", strings.Repeat(good, 10<<20/len(good)), "the record is too large"},
		{"one byte too large", recordOf(binding, now, 0, strings.Repeat("a", 16<<10)), "the record is too large"},
		{"version 3", strings.Replace(good, "token 1", "token 3", 1), "the record is of another version"},
		{"microseconds in version 1", recordOf(binding, now*1e6, (now+60)*1e6, canaryToken), "the record is malformed"},
		{"seconds in version 2", strings.Replace(good, "token 1", "token 2", 1), "the token has ended"},
		{"version 10", strings.Replace(good, "token 1", "token 10", 1), "the record is of another version"},
		{"a record and something", good + "x", "the record is malformed"},
		{"a record and a line", good + "\n", "the record is malformed"},
		{"two records", good + good, "the record is malformed"},
		{"binding twice", line(0) + line(1) + line(1) + line(2) + line(3) + line(4), "the record is malformed"},
		{"token twice", good + line(4), "the record is malformed"},
		{"another order", line(0) + line(1) + line(3) + line(2) + line(4), "the record is malformed"},
		{"a line less", line(0) + line(1) + line(2) + line(4), "the record is malformed"},
		{"upper case", strings.ToUpper(good), "the record is malformed"},
		{"binding of another account", recordOf(other, now, now+60, canaryToken), "the record is of another account or server"},
		{"binding in upper case", recordOf(strings.ToUpper(binding), now, now+60, canaryToken), "the record is of another account or server"},
		{"part of the binding", recordOf(binding[:32], now, now+60, canaryToken), "the record is of another account or server"},
		{"no binding", recordOf("", now, now+60, canaryToken), "the record is of another account or server"},
		{"from the future", recordOf(binding, now+600, now+1200, canaryToken), "the record is from the future"},
		{"ended", recordOf(binding, now-60, now-1, canaryToken), "the token has ended"},
		{"ended before it began", recordOf(binding, now+120, now+60, canaryToken), "the token has ended"},
		{"without an end, of an end", recordOf(binding, now, "", canaryToken), "the record is malformed"},
		{"negative", recordOf(binding, now, -1, canaryToken), "the record is malformed"},
		{"negative zero", recordOf(binding, now, "-0", canaryToken), "the record is malformed"},
		{"plus sign", recordOf(binding, now, fmt.Sprint("+", now+60), canaryToken), "the record is malformed"},
		{"leading zero", recordOf(binding, fmt.Sprint("0", now), now+60, canaryToken), "the record is malformed"},
		{"hexadecimal", recordOf(binding, now, fmt.Sprintf("%#x", now+60), canaryToken), "the record is malformed"},
		{"with a fraction", recordOf(binding, now, fmt.Sprint(now+60, ".5"), canaryToken), "the record is malformed"},
		{"exponent", recordOf(binding, now, "2e9", canaryToken), "the record is malformed"},
		{"underscores", recordOf(binding, now, "9_999_999_999", canaryToken), "the record is malformed"},
		{"far beyond all years", recordOf(binding, now, "9223372036854775808", canaryToken), "the record is malformed"},
		{"blank before a number", recordOf(binding, now, " 1", canaryToken), "the record is malformed"},
		{"no token", recordOf(binding, now, now+60, ""), "the record is malformed"},
		{"blank in the token", recordOf(binding, now, now+60, canaryToken+" "), "the record is malformed"},
		{"zero byte in the token", recordOf(binding, now, now+60, canaryToken+"\x00"), "the record is malformed"},
		{"token too long", recordOf(binding, now, now+60, strings.Repeat("a", 4097)), "the record is malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			record := []byte(test.record)
			token, err := ampauth.DecodeToken(k, record)
			wantMiss(t, err, test.reason)
			if !token.Value.IsZero() || !token.ExpiresAt.IsZero() {
				t.Error("there is a token with the miss")
			}
			if string(record) != test.record {
				t.Error("the record was changed")
			}
		})
	}
}

func TestRecordIsReadWhateverTheClocksSayWithinReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, now := recordKey(t), time.Now()
		for _, test := range []struct {
			name   string
			ahead  time.Duration // of the clock of whoever wrote the record
			life   time.Duration
			reason string
		}{
			{"same clock", 0, time.Hour, ""},
			{"five minutes ahead", 5 * time.Minute, time.Hour, ""},
			{"more than five minutes ahead", 5*time.Minute + time.Second, time.Hour, "the record is from the future"},
			{"a day behind", -24 * time.Hour, 25 * time.Hour, ""},
			{"last second", 0, time.Second, ""},
			{"no second left", 0, 0, "the token has ended"},
		} {
			token := ampauth.Token{Value: ampauth.SecretFromString(canaryToken), ObtainedAt: now.Add(test.ahead), ExpiresAt: now.Add(test.ahead + test.life)}
			_, err := ampauth.DecodeToken(k, encoded(t, k, token))
			if test.reason != "" {
				wantMiss(t, err, test.reason)
			} else if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		}
	})
}

func TestKeyIsTheSameForSpellingsOfOneAccountAndNoOther(t *testing.T) {
	k := recordKeyOf(t, "https://amp.test/api", "issuer")
	for _, same := range []string{"https://amp.test/api", "https://amp.test/api/", "https://AMP.Test/api", "HTTPS://amp.test:443/api//"} {
		if recordKeyOf(t, same, "issuer") != k {
			t.Errorf("%s gives another key", same)
		}
	}
	for _, other := range []struct{ baseURL, username string }{
		{"https://amp.test/API", "issuer"}, {"https://amp.test", "issuer"}, {"https://amp.test:8443/api", "issuer"}, {"http://amp.test/api", "issuer"},
		{"https://amp-test.test/api", "issuer"}, {"https://amp.test./api", "issuer"}, {"https://amp.test/api", "Issuer"}, {"https://amp.test/api", "issuer "},
		{"https://amp.test/api\x00issuer", "x"}, {"https://amp.test/ap", "i\x00issuer"},
	} {
		if other, err := ampauth.NewStoreKey(other.baseURL, other.username); err == nil && other == k {
			t.Errorf("%v is the same key", other)
		}
	}
}

func TestKeyOfAFaultyAccountIsAConfigurationError(t *testing.T) {
	for _, test := range []struct{ name, baseURL, username, want string }{
		{"no URL", "", "issuer", "ampauth: configuration: BaseURL (AMP_API_BASE_URL) is required"},
		{"user information", "https://issuer:" + canaryToken + "@amp.test", "issuer", "ampauth: configuration: BaseURL (AMP_API_BASE_URL) must not hold user information"},
		{"query", "https://amp.test?token=" + canaryToken, "issuer", "ampauth: configuration: BaseURL (AMP_API_BASE_URL) must not hold a query"},
		{"no user", "https://amp.test", "", "ampauth: configuration: Credentials.Username (AMP_USERNAME) is required"},
		{"blank user", "https://amp.test", " \t", "ampauth: configuration: Credentials.Username (AMP_USERNAME) is required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, err := ampauth.NewStoreKey(test.baseURL, test.username)
			if !errors.Is(err, ampauth.ErrConfig) || err.Error() != test.want || k != (ampauth.StoreKey{}) {
				t.Errorf("got %v and the error %q, want %q", k, err, test.want)
			}
		})
	}
}

func TestKeyPrintsAsItsHash(t *testing.T) {
	k := recordKey(t)
	name := k.String()
	if _, err := strconv.ParseUint(name[:16], 16, 64); err != nil || len(name) != 32 || strings.ToLower(name) != name {
		t.Errorf("%q is not 32 hexadecimal digits", name)
	}
	holder := struct{ Key ampauth.StoreKey }{k}
	full := bindingOf(t, k)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%U"} {
		if got := fmt.Sprintf(verb, k); got != name {
			t.Errorf("%s gives %q", verb, got)
		}
		for _, value := range []any{holder, &holder, []ampauth.StoreKey{k}, map[ampauth.StoreKey]bool{k: true}} {
			if got := fmt.Sprintf(verb, value); !strings.Contains(got, name) || strings.Contains(got, full) || strings.Contains(got, canaryUser) {
				t.Errorf("%s of a %T gives %q", verb, value, got)
			}
		}
	}
}

func FuzzDecodeToken(f *testing.F) {
	k := recordKey(f)
	binding := bindingOf(f, k)
	f.Add([]byte(recordOf(binding, 1700000000, 0, "0123456789abcdef0123456789abcdef01234567")))
	f.Add([]byte(recordOf(binding, 0, 999999999999, "x")))
	f.Add(encoded(f, k, ampauth.Token{Value: ampauth.SecretFromString("x"), ObtainedAt: time.UnixMicro(1700000000123456)}))
	f.Fuzz(func(t *testing.T, record []byte) {
		before := bytes.Clone(record)
		token, err := ampauth.DecodeToken(k, record)
		if !bytes.Equal(before, record) {
			t.Fatal("the record was changed")
		}
		if err != nil {
			if !errors.Is(err, ampauth.ErrNoToken) || !token.Value.IsZero() {
				t.Fatalf("got a token or an error that is no miss: %v", err)
			}
			return
		}
		version1 := bytes.HasPrefix(record, []byte("ampauth-token 1\nbinding "+binding+"\n"))
		if !version1 && !bytes.HasPrefix(record, []byte("ampauth-token 2\nbinding "+binding+"\n")) {
			t.Fatal("accepted with another version or binding")
		}
		if token.IsExpired() || time.Until(token.ObtainedAt) > 6*time.Minute {
			t.Fatal("accepted outside of its time")
		}
		again, err := ampauth.EncodeToken(k, token)
		if version1 {
			seconds := regexp.MustCompile(`(?m)^(obtained|expires) (\d+?)(000000)?$`)
			again = seconds.ReplaceAll(again, []byte("$1 $2"))
			again = bytes.Replace(again, []byte("token 2"), []byte("token 1"), 1)
		}
		if err != nil || !bytes.Equal(again, record) {
			t.Fatalf("accepted, and encoded again it is another record (error %v)", err)
		}
	})
}
