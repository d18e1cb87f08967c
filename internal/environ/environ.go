// Package environ reads an account, and the directory for its tokens, from the environment,
// without what files and shells add to a value.
package environ

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/safedir"
	"github.com/ampauth/ampauth/internal/textvalue"
)

// The variables.
const (
	BaseURLVariable      = "AMP_API_BASE_URL"
	UsernameVariable     = "AMP_USERNAME"
	PasswordVariable     = "AMP_PASSWORD"
	PasswordFileVariable = "AMP_PASSWORD_FILE"
	TokenDirVariable     = "AMP_TOKEN_DIR"
	PersistenceVariable  = "AMP_TOKEN_PERSISTENCE"
)

// A Fault is a rule that the value of a variable breaks. It shows no value but the path of
// a file.
type Fault struct{ Variable, Rule string }

// maxPasswordFile bounds what is read of the file with the password, in bytes.
const maxPasswordFile = 64 << 10

// BaseURL returns the base URL, or "" if there is none.
func BaseURL() string { return origin.Trim(textvalue.Trim(os.Getenv(BaseURLVariable))) }

// Username returns the name of the user, or "" if there is none.
func Username() string { return textvalue.TrimBreaks(os.Getenv(UsernameVariable)) }

// HasPassword reports whether there is a variable of the password, with or without a fault.
func HasPassword() bool {
	return os.Getenv(PasswordVariable) != "" || textvalue.TrimBreaks(os.Getenv(PasswordFileVariable)) != ""
}

// Password returns the password, or its faults; neither if there is none. It is the caller's
// to wipe, and there is no other copy of it than the variable.
func Password() (password []byte, faults []Fault) {
	content, path := []byte(os.Getenv(PasswordVariable)), textvalue.TrimBreaks(os.Getenv(PasswordFileVariable))
	given := len(content) > 0
	if given {
		alone, rule := textvalue.Password(content)
		if rule != "" {
			faults = append(faults, Fault{PasswordVariable, rule})
		}
		password = alone
	}
	if path == "" {
		return password, faults
	}
	if given {
		clear(content)
		faults = append(faults, Fault{PasswordFileVariable, "must not be set together with " + PasswordVariable})
	}
	password, rule := passwordOf(path)
	if rule != "" {
		faults = append(faults, Fault{PasswordFileVariable, rule})
	}
	return password, faults
}

// passwordOf returns the password that a file holds, or the rule that its path or the file
// breaks.
func passwordOf(path string) (password []byte, rule string) {
	if rule := textvalue.Rule(path); rule != "" {
		return nil, rule
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, "cannot be read: " + whyNot(path, err)
	}
	defer file.Close()
	// One buffer of our own, so that no copy of the password is left behind.
	buffer := make([]byte, maxPasswordFile+1)
	defer clear(buffer)
	n, err := io.ReadFull(file, buffer)
	switch {
	case err == nil:
		return nil, "names a file of more than 64 KiB"
	case errors.Is(err, io.EOF):
		return nil, "names an empty file"
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, "cannot be read: " + whyNot(path, err)
	}
	password, rule = textvalue.Password(buffer[:n])
	if rule != "" {
		return nil, "names a file that " + rule
	}
	return bytes.Clone(password), ""
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

// TokenDir returns where tokens are to be kept, or "" for nowhere.
func TokenDir() (dir string, faults []Fault) {
	fault := func(variable, rule string) { faults = append(faults, Fault{variable, rule}) }
	dir, persistence := textvalue.TrimBreaks(os.Getenv(TokenDirVariable)), textvalue.Trim(os.Getenv(PersistenceVariable))
	wanted := dir != ""
	if persistence != "" {
		yes, err := strconv.ParseBool(persistence)
		switch {
		case err != nil:
			fault(PersistenceVariable, "must be true or false")
		case dir != "" && !yes:
			fault(PersistenceVariable, "must not be false together with "+TokenDirVariable)
		default:
			wanted = yes
		}
	}
	if dir != "" {
		if rule := textvalue.Rule(dir); rule != "" {
			fault(TokenDirVariable, rule)
		} else if !filepath.IsAbs(dir) {
			fault(TokenDirVariable, "must be an absolute path")
		}
	} else if wanted {
		cache, err := os.UserCacheDir()
		if err != nil {
			fault(PersistenceVariable, "needs a cache directory of the user, and there is none: set "+TokenDirVariable)
		}
		dir = filepath.Join(cache, "ampauth")
	}
	if faults != nil {
		return "", faults
	}
	return dir, nil
}
