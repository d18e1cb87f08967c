package ampauth

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Credentials are what AMP's login takes.
type Credentials struct {
	Username string
	Password Secret
}

// faults returns what is wrong with c; passwordFault is as in Config.faults.
func (c Credentials) faults(passwordFault error) (faults []error) {
	if strings.TrimSpace(c.Username) == "" {
		faults = append(faults, configFault("Credentials.Username", envUsername, "is required"))
	} else if !utf8.ValidString(c.Username) {
		faults = append(faults, configFault("Credentials.Username", envUsername, "must be valid UTF-8"))
	}
	if passwordFault != nil {
		faults = append(faults, passwordFault)
	} else if rule := passwordRule(c.Password); rule != "" {
		faults = append(faults, configFault("Credentials.Password", envPassword+" or "+envPasswordFile, rule))
	}
	return faults
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
