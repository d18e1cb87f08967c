package bench

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openTUN makes a network device whose packets are read and written here. It goes when
// it is closed.
func openTUN() (device io.ReadWriteCloser, name string, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", os.NewSyscallError("open /dev/net/tun", err)
	}
	request, err := unix.NewIfreq("ampbench%d") // the kernel puts a number there
	if err != nil {
		_ = unix.Close(fd)
		return nil, "", err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd)
		return nil, "", os.NewSyscallError("TUNSETIFF", err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), request.Name(), nil
}
