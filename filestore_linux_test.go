package ampauth_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ampauth/ampauth"
)

// TestFullDiskKeepsTheOldToken mounts a small file system in a mount namespace that
// ends with the child.
func TestFullDiskKeepsTheOldToken(t *testing.T) {
	dir := t.TempDir()
	cmd := fileStoreChild(t, "full disk", dir)
	cmd.Args[1] = "-test.run=^TestFullDiskChild$"
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	output, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == mountRefused {
		t.Skipf("mounting is for root, and not everywhere: %v", err)
	}
	if err != nil {
		t.Errorf("%v:\n%s", err, output)
	}
}

const mountRefused = 77

func TestFullDiskChild(t *testing.T) {
	if os.Getenv(childEnv) != "filestore full disk" {
		t.Skip("runs in a child process of TestFullDiskKeepsTheOldToken")
	}
	mount := os.Getenv(directoryEnv)
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=64k"); err != nil {
		os.Exit(mountRefused)
	}
	s := &ampauth.FileStore{Dir: filepath.Join(mount, "tokens")}
	saveCanary(t, s)
	filler, err := os.Create(filepath.Join(mount, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for range 1000 {
		if _, err = filler.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk does not get full: %v", err)
	}
	wantStoreError(t, s, s.Save(t.Context(), recordKey(t), renewedToken()), "the file DIR/KEY.token cannot be written: no space left on device")
	wantCanary(t, s)
	wantNoLeftovers(t, s)
	if err := filler.Truncate(0); err != nil {
		t.Fatal(err)
	}
	wantHealed(t, s)
}
