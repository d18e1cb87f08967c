package ampauth

import (
	"errors"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/ampauth/ampauth/internal/environ"
	"github.com/ampauth/ampauth/internal/textvalue"
)

// ConfigFromEnv reads AMP_API_BASE_URL, AMP_USERNAME, AMP_PASSWORD or
// AMP_PASSWORD_FILE (a file with the password alone, e.g. a mounted secret), and what
// [RetryConfigFromEnv] reads. AMP_TOKEN_DIR, an absolute path, makes a [FileStore] there
// the Store, and AMP_TOKEN_PERSISTENCE=true one in the user's cache directory. An empty
// variable counts as absent. All faults are returned at once, joined; each names its field
// and variable, shows no value but the path of a file, and Is [ErrConfig].
//
// What files and shells add is taken off where it cannot be meant: white space around
// the base URL, its final slashes (so that BaseURL + "/assets" is right), and white space
// around numbers and true or false; the final line breaks of the user name and of both
// paths; of the password, from the file or the variable, a UTF-8 byte order mark and one
// final line break, LF or CRLF. Any other line break is a fault, and so is UTF-16, and
// white space around the user name or a path. Other white space of the password is part
// of it. A password that does hold line breaks can only be set in a Config.
func ConfigFromEnv() (Config, error) {
	retry, faults := retryFromEnv()
	c := Config{
		BaseURL:     environ.BaseURL(),
		Credentials: Credentials{Username: environ.Username()},
		Retry:       retry,
	}
	password, passwordFaults := environ.Password()
	c.Credentials.Password = NewSecret(password)
	dir, storeFaults := environ.TokenDir()
	if dir != "" {
		c.Store = &FileStore{Dir: dir}
	}
	faults = append(c.faults(configFaults("Credentials.Password", passwordFaults)), faults...)
	faults = append(faults, configFaults("Store", storeFaults)...)
	if err := errors.Join(faults...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// RetryConfigFromEnv reads API_RETRY_MAX_ATTEMPTS, API_RETRY_BASE_DELAY_MS,
// API_RETRY_MAX_DELAY_MS and API_REQUEST_TIMEOUT_SECONDS: whole numbers above
// zero, with or without white space around them. What is absent or empty has its default.
// All faults are returned at once.
func RetryConfigFromEnv() (RetryConfig, error) {
	c, faults := retryFromEnv()
	faults = append(faults, c.faults()...)
	if err := errors.Join(faults...); err != nil {
		return RetryConfig{}, err
	}
	return c, nil
}

func retryFromEnv() (RetryConfig, []error) {
	c := DefaultRetryConfig()
	var faults []error
	number := func(field, variable string, limit int64, set func(int64)) (ok bool) {
		text := textvalue.Trim(os.Getenv(variable))
		if text == "" {
			return true
		}
		rule := ""
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange) && n > 0, err == nil && n > limit:
			rule = "is too large, at most " + strconv.FormatInt(limit, 10)
		case err != nil && !errors.Is(err, strconv.ErrRange):
			rule = "must be a whole number"
		case n <= 0:
			rule = "must be above zero"
		}
		if rule != "" {
			faults = append(faults, configFault("Retry."+field, variable, rule))
			return false
		}
		set(n)
		return true
	}
	number("MaxAttempts", envMaxAttempts, math.MaxInt32, func(n int64) { c.MaxAttempts = int(n) })
	base := number("BaseDelay", envBaseDelay, int64(math.MaxInt64/time.Millisecond), func(n int64) { c.BaseDelay = time.Duration(n) * time.Millisecond })
	ceiling := number("MaxDelay", envMaxDelay, int64(math.MaxInt64/time.Millisecond), func(n int64) { c.MaxDelay = time.Duration(n) * time.Millisecond })
	number("Timeout", envTimeout, int64(math.MaxInt64/time.Second), func(n int64) { c.Timeout = time.Duration(n) * time.Second })
	c = c.WithTimeout(c.Timeout)
	switch {
	case !base, !ceiling: // one fault is not two
		c.BaseDelay, c.MaxDelay = DefaultRetryConfig().BaseDelay, DefaultRetryConfig().MaxDelay
	case textvalue.Trim(os.Getenv(envMaxDelay)) == "":
		c.MaxDelay = max(c.MaxDelay, c.BaseDelay)
	}
	return c, faults
}

// configFaults makes errors of a field of what its variables have against them.
func configFaults(field string, faults []environ.Fault) (errs []error) {
	for _, f := range faults {
		errs = append(errs, configFault(field, f.Variable, f.Rule))
	}
	return errs
}
