package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/environ"
	"github.com/ampauth/ampauth/internal/ini"
	"github.com/ampauth/ampauth/internal/origin"
	"github.com/ampauth/ampauth/internal/safedir"
	"github.com/ampauth/ampauth/internal/textvalue"
)

// maxProfiles bounds what is read of the file, in bytes.
const maxProfiles = 64 << 10

// The keys of the Python command.
const (
	keyURL      = "API_URL"
	keyUser     = "BLOCKSTREAM_AMP_USERNAME"
	keyPassword = "BLOCKSTREAM_AMP_PASSWORD"
)

// A profile is a section of ~/.amp/profiles, as far as the environment does not set what it
// holds.
type profile struct {
	path, name string
	file       *ini.File
	keys       map[string]string // by the variable in whose place its value stands
	faults     []error
}

// accountIn returns the configuration of the environment, filled up from the profile of that
// name in the user's home directory.
func accountIn(name string) (account, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return account{}, errors.New("ampauth: profile: there is no home directory of the user: set HOME")
	}
	if !filepath.IsAbs(home) {
		return account{}, errors.New("ampauth: profile: the home directory of the user is no absolute path: mend HOME")
	}
	p := &profile{path: filepath.Join(home, ".amp", "profiles"), name: name, keys: make(map[string]string)}
	content, err := safedir.ReadPrivate(p.path, maxProfiles)
	defer clear(content)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return account{}, fmt.Errorf("ampauth: profile: there is no file %s: make it, with mode 600, or leave out -profile and AMP_PROFILE", p.shown())
	case err != nil:
		return account{}, fmt.Errorf("ampauth: profile: %w", err)
	}
	if p.file, err = ini.Parse(content); err != nil {
		return account{}, fmt.Errorf("ampauth: profile: the file %s: %w", p.shown(), err)
	}
	if !p.file.Has(name) {
		return account{}, fmt.Errorf("ampauth: profile: the file %s has no section [%s]", p.shown(), harmless(name))
	}
	cfg, err := p.config()
	p.file = nil // its values are wiped
	return account{cfg, p}, err
}

func (p *profile) shown() string { return safedir.Shown(p.path) }

// config is ConfigFromEnv with the values of the profile in the place of those that are
// missing. What has a fault is replaced by something that has none, so that others are
// found as well, and each once.
func (p *profile) config() (ampauth.Config, error) {
	cfg := ampauth.Config{BaseURL: environ.BaseURL(), Credentials: ampauth.Credentials{Username: environ.Username()}}
	if cfg.BaseURL == "" {
		cfg.BaseURL = origin.Trim(p.text(environ.BaseURLVariable, keyURL, "https://localhost", func(url string) string {
			_, rule := origin.Parse(origin.Trim(url), false)
			return rule
		}))
	}
	if cfg.Credentials.Username == "" {
		cfg.Credentials.Username = p.text(environ.UsernameVariable, keyUser, "nobody", textvalue.Rule)
	}
	password, faults := environ.Password()
	p.blame("Credentials.Password", faults)
	if !environ.HasPassword() {
		password = p.password()
	}
	if len(password) == 0 && (len(faults) > 0 || !environ.HasPassword()) {
		password = []byte("none") // the fault is told already
	}
	cfg.Credentials.Password = ampauth.NewSecret(password) // which wipes it
	dir, faults := environ.TokenDir()
	if dir != "" {
		cfg.Store = &ampauth.FileStore{Dir: dir}
	}
	retry, err := ampauth.RetryConfigFromEnv()
	cfg.Retry = retry
	p.faults = append(p.faults, cfg.Validate(), err)
	p.blame("Store", faults)
	if err := errors.Join(p.faults...); err != nil {
		cfg.Credentials.Password.Destroy()
		return ampauth.Config{}, err
	}
	return cfg, nil
}

// blame tells the faults of a field that the environment sets, as ConfigFromEnv does.
func (p *profile) blame(field string, faults []environ.Fault) {
	for _, f := range faults {
		p.faults = append(p.faults, &ampauth.Error{
			Op: "config", Kind: ampauth.ErrConfig, Outcome: ampauth.NotSent,
			Err: fmt.Errorf("%s (%s) %s", field, f.Variable, f.Rule),
		})
	}
}

// text returns a value that is not secret, or standIn if it has a fault.
func (p *profile) text(variable, key, standIn string, rule func(string) string) string {
	value := string(p.value(variable, key))
	fault := ""
	switch {
	case value == "":
		return standIn
	case strings.HasPrefix(value, "#"), strings.HasPrefix(value, ";"), strings.Contains(value, " #"), strings.Contains(value, " ;"):
		fault = "holds a comment, which the Python command would take for a part of it: give it a line of its own"
	case len(value) > 1 && strings.ContainsRune(`"'`, rune(value[0])) && value[0] == value[len(value)-1]:
		fault = "is in quotes, which the Python command would take for a part of it: leave them out"
	default:
		fault = rule(value)
	}
	if fault != "" {
		p.fault(key, fault)
		return standIn
	}
	return value
}

func (p *profile) password() []byte {
	value := p.value(environ.PasswordVariable, keyPassword)
	if bytes.HasPrefix(value, []byte("# ")) || bytes.HasPrefix(value, []byte("; ")) {
		p.fault(keyPassword, "is a comment, which the Python command would take for the password: put the password there")
	}
	return value
}

// value returns a copy of a value. If it is missing or empty, that is a fault.
func (p *profile) value(variable, key string) []byte {
	value, err := p.file.Value(p.name, key)
	switch {
	case err != nil:
		p.fault(key, err.Error())
	case value == nil:
		p.fault(key, "is missing: add it, or set "+variable)
	case len(value) == 0:
		p.fault(key, "is empty: fill it in, or set "+variable)
	}
	p.keys[variable] = key
	return value
}

func (p *profile) fault(key, rule string) {
	p.faults = append(p.faults, fmt.Errorf("ampauth: profile: the file %s, section [%s]: %s %s", p.shown(), harmless(p.name), key, rule))
}
