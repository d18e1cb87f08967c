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
)

// maxPasswordFile bounds what is read from AMP_PASSWORD_FILE, in bytes.
const maxPasswordFile = 64 << 10

// ConfigFromEnv reads AMP_API_BASE_URL, AMP_USERNAME, AMP_PASSWORD or
// AMP_PASSWORD_FILE (a file with the password and at most one final line break,
// e.g. a mounted secret), and what [RetryConfigFromEnv] reads. AMP_TOKEN_DIR, an
// absolute path, makes a [FileStore] there the Store, and AMP_TOKEN_PERSISTENCE=true
// one in the user's cache directory. An empty variable counts as absent. All faults
// are returned at once, joined; each names its field and variable, shows no value,
// and Is [ErrConfig].
func ConfigFromEnv() (Config, error) {
	retry, faults := retryFromEnv()
	c := Config{
		BaseURL:     os.Getenv(envBaseURL),
		Credentials: Credentials{Username: os.Getenv(envUsername)},
		Retry:       retry,
	}
	password, fault := passwordFromEnv()
	c.Credentials.Password = password
	dir, storeFault := tokenDirFromEnv()
	if dir != "" {
		c.Store = &FileStore{Dir: dir}
	}
	faults = append(c.faults(fault), faults...)
	if storeFault != nil {
		faults = append(faults, storeFault)
	}
	if err := errors.Join(faults...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// RetryConfigFromEnv reads API_RETRY_MAX_ATTEMPTS, API_RETRY_BASE_DELAY_MS,
// API_RETRY_MAX_DELAY_MS and API_REQUEST_TIMEOUT_SECONDS: whole numbers above
// zero. What is absent or empty has its default. All faults are returned at once.
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
		text := os.Getenv(variable)
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
	c.MutationTimeout = max(c.MutationTimeout, c.Timeout)
	switch {
	case !base, !ceiling: // one fault is not two
		c.BaseDelay, c.MaxDelay = DefaultRetryConfig().BaseDelay, DefaultRetryConfig().MaxDelay
	case os.Getenv(envMaxDelay) == "":
		c.MaxDelay = max(c.MaxDelay, c.BaseDelay)
	}
	return c, faults
}

// tokenDirFromEnv returns where tokens are to be kept, or "" for nowhere.
func tokenDirFromEnv() (string, error) {
	dir, persistence := os.Getenv(envTokenDir), os.Getenv(envPersistence)
	wanted := dir != ""
	if persistence != "" {
		var err error
		if wanted, err = strconv.ParseBool(persistence); err != nil {
			return "", configFault("Store", envPersistence, "must be true or false")
		}
	}
	switch {
	case dir != "" && !wanted:
		return "", configFault("Store", envPersistence, "must not be false together with "+envTokenDir)
	case dir != "" && !filepath.IsAbs(dir):
		return "", configFault("Store", envTokenDir, "must be an absolute path")
	case dir != "" || !wanted:
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", configFault("Store", envPersistence, "needs a cache directory of the user, and there is none: set "+envTokenDir)
	}
	return filepath.Join(cache, "ampauth"), nil
}

func passwordFromEnv() (Secret, error) {
	password, path := os.Getenv(envPassword), os.Getenv(envPasswordFile)
	fault := func(rule string) error { return configFault("Credentials.Password", envPasswordFile, rule) }
	switch {
	case password != "" && path != "":
		return Secret{}, fault("must not be set together with " + envPassword)
	case path == "":
		return SecretFromString(password), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return Secret{}, fault("cannot be read: " + withoutPath(err))
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
		return Secret{}, fault("cannot be read: " + withoutPath(err))
	}
	content := buffer[:n]
	if content[n-1] == '\n' {
		content = content[:n-1]
		if n > 1 && content[n-2] == '\r' {
			content = content[:n-2]
		}
	}
	return NewSecret(content), nil
}

// withoutPath is the reason of a file error without the path, which is a value.
func withoutPath(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return "input/output error"
}
