package main

import (
	"fmt"
	"os"
	"strings"
)

// variables are those of the configuration.
var variables = [...]string{
	"AMP_API_BASE_URL", "AMP_USERNAME", "AMP_PASSWORD", "AMP_PASSWORD_FILE", "AMP_TOKEN_DIR", "AMP_TOKEN_PERSISTENCE",
	"AMP_PROFILE", "API_RETRY_MAX_ATTEMPTS", "API_RETRY_BASE_DELAY_MS", "API_RETRY_MAX_DELAY_MS", "API_REQUEST_TIMEOUT_SECONDS",
}

// configuration tells of all values where they came from, or all faults.
func configuration(a account, err error) finding {
	if err != nil {
		return faultyConfiguration(err)
	}
	source := func(names ...string) string {
		for _, name := range names {
			switch {
			case a.key(name) != "":
				return "profile " + harmless(a.profile.name)
			case os.Getenv(name) != "":
				return name
			}
		}
		return "default"
	}
	retry := a.Retry
	password := "set"
	if path := os.Getenv("AMP_PASSWORD_FILE"); path != "" {
		password = printable(path)
	}
	seen := []string{
		fmt.Sprintf("base URL %s (%s)", printable(a.BaseURL), source("AMP_API_BASE_URL")),
		fmt.Sprintf("user %s (%s), password %s (%s)", printable(a.Credentials.Username), source("AMP_USERNAME"),
			password, source("AMP_PASSWORD", "AMP_PASSWORD_FILE")),
		fmt.Sprintf("tokens kept in %s (%s)", printable(keptIn(a.Config)), source("AMP_TOKEN_DIR", "AMP_TOKEN_PERSISTENCE")),
		fmt.Sprintf("attempts %d (%s), timeout %v (%s)", retry.MaxAttempts, source("API_RETRY_MAX_ATTEMPTS"),
			retry.Timeout, source("API_REQUEST_TIMEOUT_SECONDS")),
		fmt.Sprintf("waits %v (%s) to %v (%s)", retry.BaseDelay, source("API_RETRY_BASE_DELAY_MS"),
			retry.MaxDelay, source("API_RETRY_MAX_DELAY_MS")),
	}
	if a.profile != nil {
		seen = append(seen, fmt.Sprintf("profile %s is in %s", harmless(a.profile.name), a.profile.shown()))
	}
	return finding{Name: "configuration", State: findingOK, Seen: seen}
}

// faultyConfiguration shows no value: a password may stand in any variable.
func faultyConfiguration(err error) finding {
	f := finding{Name: "configuration", State: findingFailed, Do: []string{"set what is named, or unset it, and run this again"}}
	for line := range strings.Lines(err.Error()) {
		f.Seen = append(f.Seen, strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "ampauth: "), "configuration: "))
	}
	var set []string
	for _, name := range variables {
		if os.Getenv(name) != "" {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		set = []string{"none of the variables"}
	}
	f.Seen = append(f.Seen, "set: "+strings.Join(set, ", "))
	return f
}
