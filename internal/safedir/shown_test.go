package safedir

import (
	"os/exec"
	"strings"
	"testing"
	"unicode"
)

func TestPathIsShownAsAShellTakesItAndHarmsNoTerminal(t *testing.T) {
	bash, _ := exec.LookPath("bash")
	for path, want := range map[string]string{
		"/var/lib/issuer/amp-tokens":     "/var/lib/issuer/amp-tokens",
		"/home/a user/tokens":            "'/home/a user/tokens'",
		"/srv/schl\u00fcssel/$HOME;`id`": "'/srv/schl\u00fcssel/$HOME;`id`'",
		"/it's":                          `$'/it\047s'`,
		"/a\n\x1b[2K?\"\\":               `$'/a\012\033[2K\077\042\134'`,
		"/\u202egnp":                     `$'/\342\200\256gnp'`,
		"/\xff":                          `$'/\377'`,
		"":                               "''",
	} {
		got := Shown(path)
		if got != want {
			t.Errorf("%q is shown as %s, want %s", path, got, want)
		}
		if i := strings.IndexFunc(got, func(c rune) bool { return !unicode.IsPrint(c) || c == '?' || c == '"' }); i >= 0 {
			t.Errorf("%q is shown as %q, which has a character that is not for showing", path, got)
		}
		if bash == "" {
			continue
		}
		if said, err := exec.Command(bash, "-c", "printf %s "+got).Output(); err != nil || string(said) != path {
			t.Errorf("a shell takes %s for %q, want %q (%v)", got, said, path, err)
		}
	}
}

func TestPathOfWindowsIsShownAsItIs(t *testing.T) {
	for path, want := range map[string]string{
		`C:\Users\issuer\amp-tokens`: `C:\Users\issuer\amp-tokens`,
		`C:\Users\an issuer`:         `'C:\Users\an issuer'`,
	} {
		if got := shown(path, '\\'); got != want {
			t.Errorf("%s is shown as %s, want %s", path, got, want)
		}
	}
}
