package ampauth

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
)

// A Sealer encrypts what a [FileStore], or another store that uses [SealToken], writes.
// [NewAESGCMSealer] makes one; others may ask a key management service or the keyring of
// the system. Its methods must be safe for concurrent use, must not keep or change their
// arguments, and show nothing of them in an error.
type Sealer interface {
	// Seal encrypts plain and returns it in a buffer of its own. The context is not
	// secret and not part of the result, but authenticated with it.
	Seal(plain, context []byte) ([]byte, error)

	// Open returns what was sealed, in a buffer of its own that the caller wipes. It
	// is an error unless sealed is what Seal returned with this key and context.
	Open(sealed, context []byte) ([]byte, error)
}

const sealKeyLength = 32

// NewAESGCMSealer returns a [Sealer] with AES-256-GCM and random nonces. The key
// has 32 bytes; a key of another length is an error that Is [ErrConfig]. The Sealer
// has its own copy of it, so that key may be destroyed afterwards.
//
// Take 32 random bytes from where the token file is not: a key management service,
// a credential of the service manager, a keyring. Never derive the key from the
// password of the account: whoever finds the file could then try passwords on it
// without limit, and a token, which is good for a day, would give the password away.
func NewAESGCMSealer(key Secret) (Sealer, error) {
	var aead cipher.AEAD
	err := key.Expose(func(b []byte) error {
		if len(b) != sealKeyLength {
			return configFault("key", "", "must be 32 bytes long")
		}
		block, err := aes.NewCipher(b)
		if err != nil {
			return err
		}
		aead, err = cipher.NewGCMWithRandomNonce(block)
		return err
	})
	if err != nil {
		return nil, err
	}
	return aesGCM{func() cipher.AEAD { return aead }}, nil
}

// aesGCM has a closure in place of the cipher, so that nobody prints the key.
type aesGCM struct{ aead func() cipher.AEAD }

func (s aesGCM) Seal(plain, context []byte) ([]byte, error) {
	return s.aead().Seal(nil, nil, plain, context), nil
}

func (s aesGCM) Open(sealed, context []byte) ([]byte, error) {
	plain, err := s.aead().Open(nil, nil, sealed, context)
	if err != nil {
		return nil, errNotSealed
	}
	return plain, nil
}

var errNotSealed = errors.New("ampauth: not sealed with this key and context, or changed since")

// sealedHead begins a record that a Sealer has encrypted.
const sealedHead = "ampauth-sealed 1\n"

// SealToken is [EncodeToken] with the record encrypted, for a [TokenStore] that others
// read. If the Sealer is nil the record is in clear. The record has at most 16 KiB.
func SealToken(k StoreKey, t Token, by Sealer) (record []byte, err error) {
	plain, err := EncodeToken(k, t)
	if err != nil || by == nil {
		return plain, err
	}
	defer clear(plain)
	sealed, err := by.Seal(plain, sealContext(k))
	if err != nil {
		return nil, storeFault(hidden("the token cannot be sealed", err))
	}
	record = append([]byte(sealedHead), sealed...)
	if len(record) > maxRecord {
		return nil, storeFault(errors.New("the sealed token is larger than 16 KiB"))
	}
	return record, nil
}

// OpenToken is [DecodeToken] for the record of a SealToken with the same Sealer. A record
// in clear is a miss where there is a Sealer: anybody could have written it.
func OpenToken(k StoreKey, record []byte, by Sealer) (Token, error) {
	sealed, isSealed := bytes.CutPrefix(record, []byte(sealedHead))
	switch {
	case by == nil && isSealed:
		return Token{}, miss("the token is sealed, and there is no Sealer")
	case by == nil:
		return DecodeToken(k, record)
	case !isSealed:
		return Token{}, miss("the token is not sealed, and there is a Sealer")
	case len(record) > maxRecord:
		return Token{}, miss("the record is too large")
	}
	plain, err := by.Open(sealed, sealContext(k))
	if err != nil {
		return Token{}, miss("the token was changed, or sealed with another key or for another account")
	}
	defer clear(plain)
	return DecodeToken(k, plain)
}

// sealContext binds what is sealed to the account. It is the same for all versions of the
// record, so that a sealed one of version 1 is still opened.
func sealContext(k StoreKey) []byte {
	return []byte(recordHead1 + hex.EncodeToString(k.sum[:]))
}
