package environ

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func set(t *testing.T, environment map[string]string) {
	t.Helper()
	for _, name := range []string{BaseURLVariable, UsernameVariable, PasswordVariable, PasswordFileVariable, TokenDirVariable, PersistenceVariable} {
		t.Setenv(name, environment[name])
	}
}

func TestWhatFilesAndShellsAddIsTakenOff(t *testing.T) {
	set(t, map[string]string{BaseURLVariable: " https://amp.example/api//\r\n", UsernameVariable: "issuer\n"})
	if BaseURL() != "https://amp.example/api" || Username() != "issuer" {
		t.Errorf("%q, %q", BaseURL(), Username())
	}
	set(t, map[string]string{BaseURLVariable: " \n", UsernameVariable: "\n"})
	if BaseURL() != "" || Username() != "" {
		t.Errorf("what is empty is not absent: %q, %q", BaseURL(), Username())
	}
}

func TestPasswordIsOfTheVariableOrTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("\ufefffrom file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text, file string
		want       string
		blamed     []string
		given      bool
	}{
		"neither":       {"", "", "", nil, false},
		"variable":      {"word\n", "", "word", nil, true},
		"file":          {"", file + "\n", "from file", nil, true},
		"both":          {"word", file, "from file", []string{PasswordFileVariable}, true},
		"no file":       {"", file + "x", "", []string{PasswordFileVariable}, true},
		"two passwords": {"a\nb", "", "", []string{PasswordVariable}, true},
	} {
		set(t, map[string]string{PasswordVariable: test.text, PasswordFileVariable: test.file})
		password, faults := Password()
		var blamed []string
		for _, f := range faults {
			blamed = append(blamed, f.Variable)
		}
		if string(password) != test.want || !slices.Equal(blamed, test.blamed) || HasPassword() != test.given {
			t.Errorf("%s: %q, %v, given %v", name, password, faults, HasPassword())
		}
	}
}

func TestTokenDirIsAbsoluteAndMeant(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ dir, persistence, want, blamed string }{
		"nothing":           {"", "", "", ""},
		"directory":         {dir + "\n", "", dir, ""},
		"and wanted":        {dir, " true", dir, ""},
		"and not wanted":    {dir, "false", "", PersistenceVariable},
		"not wanted":        {"", "0", "", ""},
		"relative":          {"tokens", "", "", TokenDirVariable},
		"white space":       {dir + " ", "", "", TokenDirVariable},
		"neither yes or no": {"", "maybe", "", PersistenceVariable},
	} {
		set(t, map[string]string{TokenDirVariable: test.dir, PersistenceVariable: test.persistence})
		got, faults := TokenDir()
		blamed := ""
		if len(faults) > 0 {
			blamed = faults[0].Variable
		}
		if got != test.want || blamed != test.blamed || len(faults) > 1 {
			t.Errorf("%s: %q, %v", name, got, faults)
		}
	}
}
