package ampauth

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/ampauth/ampauth/internal/textvalue"
)

// Credentials are what AMP's login takes. The user name holds no control characters and
// no white space around it; the password is sent as it is.
type Credentials struct {
	Username string
	Password Secret
}

// faults returns what is wrong with c; passwordFaults are as in Config.faults.
func (c Credentials) faults(passwordFaults []error) (faults []error) {
	if rule := usernameRule(c.Username); rule != "" {
		faults = append(faults, configFault("Credentials.Username", envUsername, rule))
	}
	if len(passwordFaults) > 0 {
		faults = append(faults, passwordFaults...)
	} else if rule := passwordRule(c.Password); rule != "" {
		faults = append(faults, configFault("Credentials.Password", envPassword+" or "+envPasswordFile, rule))
	}
	return faults
}

func usernameRule(username string) string {
	switch {
	case strings.TrimSpace(username) == "":
		return "is required"
	case !utf8.ValidString(username):
		return "must be valid UTF-8"
	}
	return textvalue.Rule(username)
}

func passwordRule(password Secret) (rule string) {
	err := password.Expose(func(b []byte) error {
		switch {
		case len(bytes.TrimSpace(b)) == 0:
			rule = "is required"
		case !utf8.Valid(b):
			rule = "must be valid UTF-8"
		}
		return nil
	})
	if err != nil {
		rule = "was destroyed"
	}
	return rule
}
