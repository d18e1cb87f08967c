package ampauth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"

	"github.com/ampauth/ampauth/internal/safedir"
)

// sealedHead begins a token file that a Sealer has encrypted; one in clear begins
// with recordHead.
const sealedHead = "ampauth-sealed 1\n"

// loadFile returns the token in a file, or a miss.
func (s *FileStore) loadFile(dir *safedir.Dir, k StoreKey) (Token, error) {
	content, err := dir.Read(k.String()+tokenFile, maxRecord)
	if err != nil {
		return Token{}, missOf(err)
	}
	defer clear(content)
	return s.decode(k, content)
}

// encode returns what the file of a token holds.
func (s *FileStore) encode(k StoreKey, t Token) ([]byte, error) {
	record, err := EncodeToken(k, t)
	if err != nil || s.Sealer == nil {
		return record, err
	}
	defer clear(record)
	sealed, err := s.Sealer.Seal(record, sealContext(k))
	if err != nil {
		return nil, storeFault(hidden("the token cannot be sealed", err))
	}
	return append([]byte(sealedHead), sealed...), nil
}

// decode is the reverse of encode.
func (s *FileStore) decode(k StoreKey, content []byte) (Token, error) {
	sealed, isSealed := bytes.CutPrefix(content, []byte(sealedHead))
	switch {
	case s.Sealer == nil && isSealed:
		return Token{}, miss("the token is sealed, and there is no Sealer")
	case s.Sealer == nil:
		return DecodeToken(k, content)
	case !isSealed: // anybody could have written it
		return Token{}, miss("the token is not sealed, and there is a Sealer")
	}
	record, err := s.Sealer.Open(sealed, sealContext(k))
	if err != nil {
		return Token{}, miss("the token was changed, or sealed with another key or for another account")
	}
	defer clear(record)
	return DecodeToken(k, record)
}

// sealContext binds what is sealed to the account and the version of the record.
func sealContext(k StoreKey) []byte {
	return []byte(recordHead + hex.EncodeToString(k.sum[:]))
}

// missOf returns the miss for a fault of the directory or the file.
func missOf(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoToken
	}
	return miss(err.Error())
}

// storeFault returns the error of a store for its cause; nil if that is nil.
func storeFault(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: "store", Kind: ErrStore, Outcome: NotSent, Err: err}
}
