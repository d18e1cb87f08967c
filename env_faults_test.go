package ampauth_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampauth/ampauth"
)

// An envFault is a way to spoil the environment. Where it needs other variables for that,
// another fault may set them.
type envFault struct {
	name, rule string
	sets       map[string]string
	needs      map[string]string
}

func envFaults(t *testing.T) []envFault {
	list := []envFault{
		{name: "no base URL", rule: "(AMP_API_BASE_URL) is required", sets: map[string]string{"AMP_API_BASE_URL": ""}},
		{name: "base URL of two lines", rule: "(AMP_API_BASE_URL) must not hold line breaks", sets: map[string]string{"AMP_API_BASE_URL": "https://zq7value\n.test"}},
		{name: "no user", rule: "(AMP_USERNAME) is required", sets: map[string]string{"AMP_USERNAME": ""}},
		{name: "user in white space", rule: "(AMP_USERNAME) must not begin or end", sets: map[string]string{"AMP_USERNAME": " zq7value"}},
		{name: "password of two lines", rule: "(AMP_PASSWORD) holds more", sets: map[string]string{"AMP_PASSWORD": "zq7value\nzq7value"}},
		{name: "password file that is missing", rule: "(AMP_PASSWORD_FILE) cannot be read", sets: map[string]string{"AMP_PASSWORD_FILE": "/nowhere/zq7value"}},
		{name: "password file with a faulty path", rule: "(AMP_PASSWORD_FILE) must not begin or end", sets: map[string]string{"AMP_PASSWORD_FILE": " /zq7value"}},
		{name: "relative token directory", rule: "(AMP_TOKEN_DIR) must be an absolute path", sets: map[string]string{"AMP_TOKEN_DIR": "zq7value"}},
		{name: "token directory of two lines", rule: "(AMP_TOKEN_DIR) must not hold line breaks", sets: map[string]string{"AMP_TOKEN_DIR": "/zq7value\nzq7value"}},
		{name: "persistence that is no boolean", rule: "(AMP_TOKEN_PERSISTENCE) must be true or false", sets: map[string]string{"AMP_TOKEN_PERSISTENCE": "zq7value"}},
		{name: "no persistence with a directory", rule: "(AMP_TOKEN_PERSISTENCE) must not be false", sets: map[string]string{"AMP_TOKEN_PERSISTENCE": "false"},
			needs: map[string]string{"AMP_TOKEN_DIR": t.TempDir()}},
		{name: "base delay above the maximum", rule: "(API_RETRY_MAX_DELAY_MS) must not be below",
			sets: map[string]string{"API_RETRY_BASE_DELAY_MS": "2000", "API_RETRY_MAX_DELAY_MS": "1999"}},
		{name: "maximum below the default base delay", rule: "(API_RETRY_MAX_DELAY_MS) must not be below",
			sets: map[string]string{"API_RETRY_BASE_DELAY_MS": "", "API_RETRY_MAX_DELAY_MS": "999"}},
	}
	for _, variable := range []string{"API_RETRY_MAX_ATTEMPTS", "API_RETRY_BASE_DELAY_MS", "API_RETRY_MAX_DELAY_MS", "API_REQUEST_TIMEOUT_SECONDS"} {
		for value, rule := range map[string]string{"zq7value": "must be a whole number", "0": "must be above zero", "9223372036854775807": "is too large"} {
			list = append(list, envFault{name: variable + "=" + value, rule: "(" + variable + ") " + rule, sets: map[string]string{variable: value}})
		}
	}
	return list
}

// Whoever repairs one fault and is then told of the next needs two deployments.
func TestAnyTwoFaultsOfTheEnvironmentAreBothTold(t *testing.T) {
	list := envFaults(t)
	pairs := 0
	for i, one := range list {
		for _, other := range list[i:] {
			variables := map[string]string{"AMP_API_BASE_URL": "https://amp.test/api", "AMP_USERNAME": "issuer"}
			maps.Copy(variables, one.needs)
			maps.Copy(variables, other.needs)
			maps.Copy(variables, one.sets)
			together := true
			for variable, value := range other.sets {
				set, ok := one.sets[variable]
				together = together && (!ok || set == value)
				variables[variable] = value
			}
			if !together {
				continue // one variable has one value
			}
			want := []string{one.rule}
			if one.name != other.name {
				want = append(want, other.rule)
			}
			if variables["AMP_PASSWORD"] != "" && variables["AMP_PASSWORD_FILE"] != "" {
				want = append(want, "must not be set together with AMP_PASSWORD")
			} else if variables["AMP_PASSWORD_FILE"] == "" && variables["AMP_PASSWORD"] == "" {
				variables["AMP_PASSWORD"] = "correct horse"
			}
			pairs++
			t.Run(one.name+", "+other.name, func(t *testing.T) {
				environment(t, variables)
				_, err := ampauth.ConfigFromEnv()
				if !errors.Is(err, ampauth.ErrConfig) || len(faults(err)) != len(want) {
					t.Fatalf("got %d faults, want %d:\n%v", len(faults(err)), len(want), err)
				}
				text := fmt.Sprint(err)
				for _, rule := range want {
					if !strings.Contains(text, rule) {
						t.Errorf("does not say %q:\n%s", rule, text)
					}
				}
				if strings.Contains(text, "zq7value") {
					t.Errorf("shows a value:\n%s", text)
				}
			})
		}
	}
	if pairs < 200 {
		t.Errorf("only %d pairs", pairs)
	}
}

func TestPasswordIsSetOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("correct horse"), 0o600); err != nil {
		t.Fatal(err)
	}
	environment(t, map[string]string{
		"AMP_API_BASE_URL": "https://amp.test/api", "AMP_USERNAME": "issuer", "AMP_PASSWORD": "correct horse", "AMP_PASSWORD_FILE": path,
	})
	_, err := ampauth.ConfigFromEnv()
	if !errors.Is(err, ampauth.ErrConfig) || len(faults(err)) != 1 || !strings.Contains(err.Error(), "(AMP_PASSWORD_FILE) must not be set together with AMP_PASSWORD") {
		t.Errorf("got %v, want the one fault that both are set", err)
	}
}
