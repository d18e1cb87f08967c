package ampauth

import (
	"runtime"
	"testing"
	"time"
	"unsafe"
)

// bufferOf returns the buffer of a Secret that nobody can reach any more.
//
//go:noinline
func bufferOf(text string) []byte {
	return SecretFromString(text).ref().content
}

// isWiped looks behind the race detector's back: the wipe of the garbage
// collector synchronizes with nobody.
//
//go:norace
func isWiped(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func TestUnreachableSecretIsWiped(t *testing.T) {
	buffer := bufferOf("forgotten by its owner")
	for range 500 {
		runtime.GC()
		if isWiped(buffer) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the buffer of a Secret that nobody can reach was not wiped")
}

func TestReachableSecretIsNotWiped(t *testing.T) {
	s := SecretFromString("still in use")
	copied := s
	for range 5 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if !copied.Equal(SecretFromString("still in use")) {
		t.Error("the garbage collector wiped a Secret in use")
	}
}

func TestHeaderIsBuiltOncePerToken(t *testing.T) {
	s := SecretFromString("0123456789abcdef0123456789abcdef01234567")
	copied := s
	first, err := s.authorization("token")
	if err != nil {
		t.Fatal(err)
	}
	again, err := copied.authorization("token")
	if err != nil {
		t.Fatal(err)
	}
	if unsafe.StringData(first) != unsafe.StringData(again) {
		t.Error("each request puts another copy of the token into memory")
	}
	other, err := s.authorization("Bearer")
	if err != nil || other != "Bearer 0123456789abcdef0123456789abcdef01234567" {
		t.Errorf("another scheme word gives %q, error %v", other, err)
	}
	s.Destroy()
	if value, err := copied.authorization("Bearer"); err == nil || value != "" {
		t.Error("a destroyed token still makes a header")
	}
}

func TestHeaderIsMadeOfVisibleASCIIOnly(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "blank": " ", "line break": "abc\r\ndef", "zero byte": "abc\x00", "DEL": "abc\x7f",
		"not ASCII": "abcé", "inner blank": "abc def", "too long": string(make([]byte, maxTokenLength+1)),
	} {
		t.Run(name, func(t *testing.T) {
			if value, err := SecretFromString(text).authorization("token"); err == nil || value != "" {
				t.Errorf("made a header of it")
			}
		})
	}
	if _, err := (Secret{}).authorization("token"); err == nil {
		t.Error("the zero value makes a header")
	}
}
