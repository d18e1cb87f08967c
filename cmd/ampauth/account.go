package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/environ"
)

const profileUsage = "the account `NAME` of ~/.amp/profiles, where the environment sets\nnone; or that of AMP_PROFILE"

// profileFlag defines -profile, which every command has that uses an account.
// A name that is empty is refused: a script whose variable is not set means another account
// than that of the environment.
func profileFlag(flags *flag.FlagSet) *string {
	name := new(string)
	flags.Func("profile", profileUsage, func(given string) error {
		if *name = given; given == "" {
			return errors.New("a profile has a name")
		}
		return nil
	})
	return name
}

// An account is a configuration, and the profile that parts of it came from.
type account struct {
	ampauth.Config
	profile *profile // nil for none
}

// key returns the key of the profile whose value stands in the place of that variable, or ""
// if none does.
func (a account) key(variable string) string {
	if a.profile == nil {
		return ""
	}
	return a.profile.keys[variable]
}

// advice is the text of an error, in which the names of variables are replaced by the keys
// of the profile that their values came from.
func (a account) advice(text string) string {
	if a.profile == nil {
		return text
	}
	const both = environ.PasswordVariable + " or " + environ.PasswordFileVariable
	var names []string
	for _, variable := range [...]string{both, environ.PasswordFileVariable, environ.PasswordVariable, environ.UsernameVariable, environ.BaseURLVariable} {
		name := variable
		if key := a.key(strings.TrimSuffix(variable, " or "+environ.PasswordFileVariable)); key != "" {
			name = key + " of [" + harmless(a.profile.name) + "] in " + a.profile.shown()
		}
		names = append(names, variable, name) // the first that fits is taken
	}
	return strings.NewReplacer(names...).Replace(text)
}

// configured reads the flags and the configuration of a command without arguments. If ok is
// false there is nothing more to do but to exit with code.
func configured(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (a account, code int, ok bool) {
	profile := profileFlag(flags)
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return a, code, false
	}
	if flags.NArg() > 0 {
		return a, misused(flags, stderr, "takes no arguments"), false
	}
	a, err := accountOf(*profile)
	if err != nil {
		fmt.Fprintln(stderr, err) // every fault at once, a line each
		return a, exitError, false
	}
	return a, exitOK, true
}

// accountOf returns the configuration of the environment and, for what is not set there, of
// the profile of that name, or else of the one that AMP_PROFILE names. All faults are
// returned at once.
func accountOf(profile string) (account, error) {
	name := cmp.Or(profile, os.Getenv("AMP_PROFILE"))
	if name == "" {
		cfg, err := ampauth.ConfigFromEnv()
		return account{Config: cfg}, err
	}
	return accountIn(name)
}
