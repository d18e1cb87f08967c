package ampauth

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/safedir"
	"github.com/ampauth/ampauth/internal/textvalue"
)

// maxPasswordFile bounds what is read from AMP_PASSWORD_FILE, in bytes.
const maxPasswordFile = 64 << 10

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
		BaseURL:     origin.Trim(textvalue.Trim(os.Getenv(envBaseURL))),
		Credentials: Credentials{Username: textvalue.TrimBreaks(os.Getenv(envUsername))},
		Retry:       retry,
	}
	password, passwordFaults := passwordFromEnv()
	c.Credentials.Password = password
	dir, storeFaults := tokenDirFromEnv()
	if dir != "" {
		c.Store = &FileStore{Dir: dir}
	}
	faults = append(c.faults(passwordFaults), append(faults, storeFaults...)...)
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

// tokenDirFromEnv returns where tokens are to be kept, or "" for nowhere.
func tokenDirFromEnv() (dir string, faults []error) {
	fault := func(variable, rule string) { faults = append(faults, configFault("Store", variable, rule)) }
	dir, persistence := textvalue.TrimBreaks(os.Getenv(envTokenDir)), textvalue.Trim(os.Getenv(envPersistence))
	wanted := dir != ""
	if persistence != "" {
		yes, err := strconv.ParseBool(persistence)
		switch {
		case err != nil:
			fault(envPersistence, "must be true or false")
		case dir != "" && !yes:
			fault(envPersistence, "must not be false together with "+envTokenDir)
		default:
			wanted = yes
		}
	}
	if dir != "" {
		if rule := textvalue.Rule(dir); rule != "" {
			fault(envTokenDir, rule)
		} else if !filepath.IsAbs(dir) {
			fault(envTokenDir, "must be an absolute path")
		}
	} else if wanted {
		cache, err := os.UserCacheDir()
		if err != nil {
			fault(envPersistence, "needs a cache directory of the user, and there is none: set "+envTokenDir)
		}
		dir = filepath.Join(cache, "ampauth")
	}
	if faults != nil {
		return "", faults
	}
	return dir, nil
}

func passwordFromEnv() (password Secret, faults []error) {
	content, path := []byte(os.Getenv(envPassword)), textvalue.TrimBreaks(os.Getenv(envPasswordFile))
	defer clear(content)
	if len(content) > 0 || path == "" {
		alone, rule := textvalue.Password(content)
		if rule != "" {
			faults = append(faults, configFault("Credentials.Password", envPassword, rule))
		}
		password = NewSecret(alone)
	}
	if path == "" {
		return password, faults
	}
	if len(content) > 0 {
		faults = append(faults, configFault("Credentials.Password", envPasswordFile, "must not be set together with "+envPassword))
	}
	fromFile, fault := passwordFromFile(path)
	if fault != nil {
		faults = append(faults, fault)
	}
	return fromFile, faults
}

func passwordFromFile(path string) (Secret, error) {
	fault := func(rule string) error { return configFault("Credentials.Password", envPasswordFile, rule) }
	if rule := textvalue.Rule(path); rule != "" {
		return Secret{}, fault(rule)
	}
	file, err := os.Open(path)
	if err != nil {
		return Secret{}, fault("cannot be read: " + whyNot(path, err))
	}
	defer file.Close()
	// One buffer of our own, so that no copy of the password is left behind.
	buffer := make([]byte, maxPasswordFile+1)
	defer clear(buffer)
	n, err := io.ReadFull(file, buffer)
	switch {
	case err == nil:
		return Secret{}, fault("names a file of more than 64 KiB")
	case errors.Is(err, io.EOF):
		return Secret{}, fault("names an empty file")
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return Secret{}, fault("cannot be read: " + whyNot(path, err))
	}
	password, rule := textvalue.Password(buffer[:n])
	if rule != "" {
		return Secret{}, fault("names a file that " + rule)
	}
	return NewSecret(password), nil
}

// whyNot is why a file cannot be read. Its path is shown unless it may be a password that
// was put into the wrong variable: nothing of it exists.
func whyNot(path string, err error) string {
	why := "input/output error"
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		why = e.Err.Error()
	}
	if !filepath.IsAbs(path) {
		return why + " (the path is not absolute)"
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return safedir.Shown(path) + ": " + why
		}
	}
	return why
}
