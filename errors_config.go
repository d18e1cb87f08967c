package ampauth

import (
	"errors"
	"fmt"
	"time"

	"github.com/ampauth/ampauth/internal/environ"
)

// The environment variables, with the names of the Rust client of the same API.
const (
	envBaseURL      = environ.BaseURLVariable
	envUsername     = environ.UsernameVariable
	envPassword     = environ.PasswordVariable
	envPasswordFile = environ.PasswordFileVariable
	envMaxAttempts  = "API_RETRY_MAX_ATTEMPTS"
	envBaseDelay    = "API_RETRY_BASE_DELAY_MS"
	envMaxDelay     = "API_RETRY_MAX_DELAY_MS"
	envTimeout      = "API_REQUEST_TIMEOUT_SECONDS"
	envTokenDir     = environ.TokenDirVariable
)

// tooShort returns the rule that a span of time breaks which is too short to be meant. No
// value of this package that bounds a call or a token is below a millisecond.
func tooShort(d time.Duration, example string) (rule string) {
	if d <= 0 || d >= time.Millisecond {
		return ""
	}
	return "is below 1 ms: a number alone counts nanoseconds, so write a time.Duration with its unit, such as " + example
}

// notMade is the error of a value that was written as a struct and needs a constructor.
func notMade(what, constructor string) error {
	return configFault(what, "", "was not made: use "+constructor)
}

// configFault is the error of a field, and of the environment variable that sets it, if any.
func configFault(field, variable, rule string) error {
	if variable != "" {
		field = fmt.Sprintf("%s (%s)", field, variable)
	}
	return &Error{Op: "config", Kind: ErrConfig, Outcome: NotSent, Err: errors.New(field + " " + rule)}
}
