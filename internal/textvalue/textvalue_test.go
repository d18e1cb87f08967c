package textvalue

import (
	"bytes"
	"testing"
)

func TestWhatNobodySeesIsTrimmedOrAgainstTheRule(t *testing.T) {
	const (
		breaks = "must not hold line breaks or control characters"
		spaces = "must not begin or end with white space"
	)
	for given, want := range map[string]struct{ trimmed, withoutBreaks, rule string }{
		"":                 {"", "", ""},
		"a b":              {"a b", "a b", ""},
		"\u00fc\U0001f511": {"\u00fc\U0001f511", "\u00fc\U0001f511", ""},
		"a\n":              {"a", "a", breaks},
		"a\r\n\n":          {"a", "a", breaks},
		"\na":              {"a", "\na", breaks},
		"a\nb":             {"a\nb", "a\nb", breaks},
		"a\tb":             {"a\tb", "a\tb", breaks},
		"a\x00b":           {"a\x00b", "a\x00b", breaks},
		"a\x7f":            {"a\x7f", "a\x7f", breaks},
		"a\u0085":          {"a", "a\u0085", breaks},
		"a\u2028b":         {"a\u2028b", "a\u2028b", breaks},
		" a":               {"a", " a", spaces},
		"a \n":             {"a", "a ", breaks},
		"a\u00a0":          {"a", "a\u00a0", spaces},
		"\ufeffa":          {"a", "\ufeffa", spaces},
	} {
		if got := Trim(given); got != want.trimmed {
			t.Errorf("Trim(%q) = %q, want %q", given, got, want.trimmed)
		}
		if got := TrimBreaks(given); got != want.withoutBreaks {
			t.Errorf("TrimBreaks(%q) = %q, want %q", given, got, want.withoutBreaks)
		}
		if got := Rule(given); got != want.rule {
			t.Errorf("Rule(%q) = %q, want %q", given, got, want.rule)
		}
	}
}

func TestPasswordIsWhatStandsAlone(t *testing.T) {
	const (
		utf16 = "is in UTF-16, or not text: save it as UTF-8"
		more  = "holds more than the password: it may have one line break, at its end"
	)
	for given, want := range map[string]struct{ password, rule string }{
		"":                         {"", ""},
		"word":                     {"word", ""},
		"word\n":                   {"word", ""},
		"word\r\n":                 {"word", ""},
		"\n":                       {"", ""},
		" pass word ":              {" pass word ", ""},
		" pass\tword \n":           {" pass\tword ", ""},
		"\ufeffword\r\n":           {"word", ""},
		"\ufeff\ufeffword":         {"word", ""},
		"\ufeff":                   {"", ""},
		"wo\ufeffrd":               {"wo\ufeffrd", ""},
		"\xe9t\xe9":                {"\xe9t\xe9", ""}, // not UTF-8, which is told elsewhere
		"word\n\n":                 {"", more},
		"word\r":                   {"", more},
		"word\r\r\n":               {"", more},
		"word\nuser\n":             {"", more},
		"\nword":                   {"", more},
		"\xff\xfew\x00o\x00":       {"", utf16},
		"\xfe\xff\x00w\x00o":       {"", utf16},
		"w\x00o\x00r\x00d\x00":     {"", utf16},
		"\x00\x00\xfe\xff\x00\x00": {"", utf16},
	} {
		password, rule := Password([]byte(given))
		if string(password) != want.password || rule != want.rule {
			t.Errorf("%q: %q, %q; want %q, %q", given, password, rule, want.password, want.rule)
		}
	}
}

func FuzzPassword(f *testing.F) {
	for _, seed := range []string{"word\n", "word\r\n", "\ufeffword", "\xff\xfew\x00", "a\n\n", "\ufeff\n", "\ufeff\ufeff\r\n", "a\r", "\xef\xbb"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		before := bytes.Clone(content)
		password, rule := Password(content)
		if !bytes.Equal(content, before) {
			t.Error("the content was changed")
		}
		if rule != "" {
			if password != nil {
				t.Error("a password that breaks a rule is returned")
			}
			return
		}
		if bytes.HasPrefix(password, []byte("\ufeff")) || bytes.ContainsAny(password, "\r\n\x00") {
			t.Errorf("%q: %q holds what is none of it", content, password)
		}
		if !bytes.Contains(content, password) || len(content) > len(password)+2 && !bytes.HasPrefix(content, []byte("\ufeff")) {
			t.Errorf("%q: %q is not what was there", content, password)
		}
		if again, rule := Password(password); rule != "" || !bytes.Equal(again, password) {
			t.Errorf("%q: %q, and of that %q, %q", content, password, again, rule)
		}
	})
}
