package ampauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ampauth/ampauth"
)

func TestSealerOpensWhatItSealedInTheSameContextOnly(t *testing.T) {
	sealer, plain, context := newSealer(t, sealKey), []byte(canaryToken), []byte("context")
	sealed, err := sealer.Seal(plain, context)
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(sealed)) != nil || bytes.Contains(sealed, context) || string(plain) != canaryToken {
		t.Error("it did not encrypt, or not in a buffer of its own")
	}
	opened, err := newSealer(t, sealKey).Open(sealed, context)
	if err != nil || string(opened) != canaryToken {
		t.Errorf("it does not open again: %v", err)
	}
	again, err := sealer.Seal(plain, context)
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("two seals of one text are the same (error %v)", err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another context": func() ([]byte, error) { return sealer.Open(sealed, []byte("contexT")) },
		"no context":      func() ([]byte, error) { return sealer.Open(sealed, nil) },
		"another key":     func() ([]byte, error) { return newSealer(t, strings.Repeat("k", 32)).Open(sealed, context) },
		"nothing":         func() ([]byte, error) { return sealer.Open(nil, context) },
		"nonce only":      func() ([]byte, error) { return sealer.Open(sealed[:12], context) },
		"a byte more":     func() ([]byte, error) { return sealer.Open(append(bytes.Clone(sealed), 0), context) },
		"a byte less":     func() ([]byte, error) { return sealer.Open(sealed[:len(sealed)-1], context) },
	} {
		if opened, err := open(); err == nil || opened != nil {
			t.Errorf("%s: it was opened", name)
		} else if found := leaks(everythingErrorsSay(err)); found != nil {
			t.Errorf("%s: the error shows %v", name, found)
		}
	}
}

func TestKeyOfASealerHas32Bytes(t *testing.T) {
	destroyed := ampauth.SecretFromString(sealKey)
	destroyed.Destroy()
	if _, err := ampauth.NewAESGCMSealer(destroyed); !errors.Is(err, ampauth.ErrDestroyed) {
		t.Errorf("a destroyed key: got the error %v", err)
	}
	for _, key := range []string{"", canaryPassword[:16], canaryPassword[:31], strings.Repeat(canaryPassword, 2)} {
		sealer, err := ampauth.NewAESGCMSealer(ampauth.SecretFromString(key))
		if !errors.Is(err, ampauth.ErrConfig) || sealer != nil {
			t.Errorf("%d bytes: got the error %v", len(key), err)
			continue
		}
		if want := "ampauth: configuration: key must be 32 bytes long"; err.Error() != want {
			t.Errorf("%d bytes: got %q, want %q", len(key), err, want)
		}
		if found := leaks(everythingErrorsSay(err)); found != nil {
			t.Errorf("%d bytes: the error shows %v", len(key), found)
		}
	}
}

func TestSealerOutlivesItsKeyAndShowsNothingOfIt(t *testing.T) {
	key := ampauth.SecretFromString(sealKey)
	sealer, err := ampauth.NewAESGCMSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	key.Destroy()
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			sealed, err := sealer.Seal([]byte("text"), nil)
			if err != nil {
				t.Errorf("Seal: %v", err)
				return
			}
			if opened, err := sealer.Open(sealed, nil); err != nil || string(opened) != "text" {
				t.Errorf("Open: %v", err)
			}
		})
	}
	users.Wait()
	store := ampauth.FileStore{Sealer: sealer}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
		if found := leaks(fmt.Sprintf(verb+verb+verb, sealer, store, &store)); found != nil {
			t.Errorf("%s shows %v", verb, found)
		}
	}
}
