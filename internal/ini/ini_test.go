package ini

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const canary = "canary"

func TestValuesAreThoseOfPythonsConfigparser(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"plain":                     {"[a]\nkey=value\n", "value"},
		"white space":               {"[a]\n  key \t=  the value \t\n", "the value"},
		"a colon":                   {"[a]\nkey: value", "value"},
		"the first of both":         {"[a]\nkey=a:b=c", "a:b=c"},
		"any case of the key":       {"[a]\nKEY=value", "value"},
		"quotes are part of it":     {"[a]\nkey=\"value\"", `"value"`},
		"a comment is part of it":   {"[a]\nkey=value # ; here", "value # ; here"},
		"comments and empty lines":  {"# x\n\n[a]\n ; y=\n# key=no\nkey=value\n  # z\n", "value"},
		"percent signs":             {"[a]\nkey=100%%%%", "100%%"},
		"CRLF and a mark":           {"\ufeff[a]\r\nkey=value\r\n", "value"},
		"another section":           {"[A]\nkey=no\n[a]\nkey=value\n[b]\nkey=no\n", "value"},
		"DEFAULT":                   {"[a]\nother=x\n[DEFAULT]\nkey=value\n", "value"},
		"before DEFAULT":            {"[DEFAULT]\nkey=no\n[a]\nkey=value\n", "value"},
		"all is indented alike":     {"  [a]\n  x=1\n  key=value\n", "value"},
		"indented below a section":  {"[a]\n    x=1\n    key=value\n  y=2", "value"},
		"it is empty":               {"[a]\nkey=\n", ""},
		"it is nothing but a sign":  {"[a]\nkey==\n", "="},
		"other scripts":             {"[a]\nkey=pässwörd \u6587\n", "pässwörd 文"},
		"a name with white space":   {"[ a ]\nkey=no\n[a]\nkey=value\n", "value"},
		"white space of any script": {"[a]\nkey=\u00a0value\u3000\n", "value"},
	} {
		file, err := Parse([]byte(test.content))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := file.Value("a", "Key"); string(got) != test.want || got == nil || err != nil {
			t.Errorf("%s: %q, error %v, want %q", name, got, err, test.want)
		}
	}
}

func TestWhatCouldBeReadInTwoWaysIsAFaultOfItsLine(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		line    int
		rule    string
	}{
		"a key twice":               {"[a]\nkey=canary\n\nKEY=canary", 4, "once more"},
		"a section twice":           {"[a]\n[b]\n[a]\n", 3, "once more"},
		"a second line":             {"[a]\nkey=x\n  canary\n", 3, "is indented"},
		"a second line later":       {"[a]\nkey=x\n\n# c\n\tcanary=1\n", 5, "is indented"},
		"an indented section":       {"[a]\nkey=x\n [canary]\n", 3, "is indented"},
		"no section":                {"# x\nkey=canary\n", 2, "before the first section"},
		"no sign":                   {"[a]\ncanary\n", 2, "has no ="},
		"no key":                    {"[a]\n=canary\n", 2, "has no key"},
		"no name":                   {"[]\n", 1, "is no section"},
		"no bracket":                {"[canary\n", 1, "is no section"},
		"a comment at a section":    {"[a] # canary\n", 1, "behind a section"},
		"two brackets":              {"[a]]\n", 1, "behind a section"},
		"UTF-16":                    {"\xff\xfe[\x00a\x00]\x00", 1, "UTF-16"},
		"UTF-16, the other way":     {"\xfe\xff\x00[\x00a\x00]", 1, "UTF-16"},
		"not UTF-8":                 {"[a]\nkey=canary\xff", 2, "UTF-8"},
		"NUL":                       {"[a]\nkey=canary\x00", 2, "control"},
		"an escape code":            {"[a]\nkey=\x1b[2Jcanary", 2, "control"},
		"a carriage return":         {"[a]\nkey=x\rcanary=y\n", 2, "control"},
		"one more at the end":       {"[a]\nkey=x\r\r\n", 2, "control"},
		"in a comment as well":      {"# \x07\n", 1, "control"},
		"a second mark":             {"\ufeff\ufeff[a]\n", 1, "before the first section"},
		"a mark before a section":   {"# x\n\ufeff[a]\n", 2, "before the first section"},
		"a next line of ISO 6429":   {"[a]\nkey=x\u0085y\n", 2, "control"},
		"an empty value, continued": {"[a]\nkey=\n canary", 3, "is indented"},
	} {
		_, err := Parse([]byte(test.content))
		fault, ok := errors.AsType[*Fault](err)
		if !ok || fault.Line != test.line || !strings.Contains(fault.Rule, test.rule) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, want line %d and %q", name, err, test.line, test.rule)
		}
	}
}

func TestSinglePercentSignIsAFaultOfTheValue(t *testing.T) {
	for _, value := range []string{"50%off", "%(other)s", "100%", "%%%", "% %"} {
		file, err := Parse([]byte("[a]\nother=x\nkey=" + value + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := file.Value("a", "key"); err != ErrPercent || got != nil {
			t.Errorf("%s: %q, error %v", value, got, err)
		}
	}
}

func TestWhatIsMissingIsNil(t *testing.T) {
	file, err := Parse([]byte("[DEFAULT]\nkey=x\n[a]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range [][2]string{{"a", "other"}, {"b", "key"}, {"A", "key"}, {"", "key"}} {
		if got, err := file.Value(at[0], at[1]); got != nil || err != nil {
			t.Errorf("%q: %q, error %v", at, got, err)
		}
	}
	if !file.Has("a") || file.Has("A") || file.Has("") {
		t.Error("it has other sections")
	}
}

// What is accepted is the same when it is written down in the plainest way, and what is
// returned can be wiped without a change to the file.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"[a]\nkey=value\n", "\ufeff[a]\r\nKEY : v%%\r\n", "[DEFAULT]\nx=1\n[a]\n  y=2\n  z=%(x)s\n", "# c\n[ a ]\n;k=v\n\nk=[v]\n", "[a]\nk=\n v", "[a]\n\u00a0k=\u3000v",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		given := bytes.Clone(content)
		file, err := Parse(content)
		if !bytes.Equal(given, content) {
			t.Fatal("the content was changed")
		}
		if err != nil {
			fault, ok := errors.AsType[*Fault](err)
			if !ok || fault.Line < 1 || fault.Line > 1+bytes.Count(content, []byte("\n")) {
				t.Fatalf("%v", err)
			}
			return
		}
		var plain bytes.Buffer
		for name, section := range file.sections {
			plain.WriteString("[" + name + "]\n")
			for key, value := range section {
				if bytes.ContainsAny(value, "\r\n") || !bytes.Contains(content, value) {
					t.Fatalf("%q is no value of the file", value)
				}
				plain.WriteString(key + "=" + string(value) + "\n")
			}
		}
		again, err := Parse(plain.Bytes())
		if err != nil {
			t.Fatalf("%v in %q", err, plain.Bytes())
		}
		for name, section := range file.sections {
			if !again.Has(name) {
				t.Fatalf("no section %q in %q", name, plain.Bytes())
			}
			for key := range section {
				value, err := file.Value(name, key)
				same, sameErr := again.Value(name, key)
				if !bytes.Equal(value, same) || err != sameErr || (value == nil) == (err == nil) {
					t.Fatalf("%q, %v and %q, %v", value, err, same, sameErr)
				}
				clear(value)
				if once, _ := file.Value(name, key); !bytes.Equal(once, same) {
					t.Fatal("the copy is none")
				}
			}
		}
	})
}
