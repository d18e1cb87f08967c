package ampauth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// sealedHead begins a token file that a Sealer has encrypted; one in clear begins
// with recordHead.
const sealedHead = "ampauth-sealed 1\n"

// createFile makes a new file with mode 0600, whatever the umask. It follows no link.
func createFile(dir *os.Root, name string) (*os.File, error) {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// replaceFile gives a file a new content in one step, through a temporary file. No
// two may do so at once.
func replaceFile(dir *os.Root, name, temporary string, content []byte) error {
	f, err := createFile(dir, temporary)
	if errors.Is(err, fs.ErrExist) { // of a writer that died, as there is no other now
		_ = dir.RemoveAll(temporary)
		f, err = createFile(dir, temporary)
	}
	if err != nil {
		return failed("the temporary file cannot be made", err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		if info, statErr := dir.Lstat(name); statErr == nil && info.IsDir() {
			_ = dir.RemoveAll(name) // which no rename replaces
		}
		err = dir.Rename(temporary, name)
	}
	if err != nil {
		_ = dir.Remove(temporary)
		return failed("the file cannot be written", err)
	}
	if d, err := dir.Open("."); err == nil {
		_ = d.Sync() // the new name, too, should survive a power cut; not every system can do this
		_ = d.Close()
	}
	return nil
}

// openFile opens a file that can be trusted. It follows no link and never waits for
// the other end of a FIFO.
func openFile(dir *os.Root, name string) (*os.File, error) {
	for range 100 {
		named, err := dir.Lstat(name)
		if err != nil {
			return nil, failed("the file cannot be read", err)
		}
		if !named.Mode().IsRegular() {
			return nil, errors.New("the file is a link or no regular file")
		}
		f, err := dir.OpenFile(name, os.O_RDONLY|safeOpen, 0)
		if err != nil {
			return nil, failed("the file cannot be read", err)
		}
		info, err := f.Stat()
		if err == nil && os.SameFile(named, info) {
			if err = distrust("the file", info); err == nil {
				return f, nil
			}
			_ = f.Close()
			return nil, err
		}
		_ = f.Close() // a Save has just put another file there, or somebody a link: look again
	}
	return nil, errors.New("the file changes all the time")
}

// loadFile returns the token in a file, or a miss.
func (s *FileStore) loadFile(dir *os.Root, k StoreKey) (Token, error) {
	f, err := openFile(dir, tokenName(k))
	if err != nil {
		return Token{}, missOf(err)
	}
	defer f.Close()
	content := make([]byte, maxRecord+1)
	defer clear(content)
	n, err := io.ReadFull(f, content)
	switch err {
	case nil:
		return Token{}, miss("the file is too large")
	case io.EOF, io.ErrUnexpectedEOF:
		return s.decode(k, content[:n])
	}
	return Token{}, missOf(failed("the file cannot be read", err))
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

// failed returns an error that says what could not be done and why, without the
// paths that package os puts between the two; nil if err is nil.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("%s: %w", what, err)
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
