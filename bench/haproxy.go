package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A proxy is an HAProxy that passes TCP on, and gives up a server sooner than a client:
// it then sends the client a FIN, and for a while still passes on what comes from it.
type proxy struct {
	address string
	command *exec.Cmd
	says    strings.Builder
	dir     string
}

const haproxyConfig = `
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server %dms
frontend front
  bind fd@3
  default_backend back
backend back
  server api %s
`

// startHAProxy starts one in front of the address target. Close it.
func startHAProxy(program, target string, serverTimeout time.Duration) (*proxy, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	dir, err := os.MkdirTemp("", "ampauth-bench-")
	if err != nil {
		return nil, err
	}
	p := &proxy{address: listener.Addr().String(), dir: dir}
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, haproxyConfig, serverTimeout.Milliseconds(), target), 0o600); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	p.command = exec.Command(program, "-db", "-f", config)
	p.command.ExtraFiles = []*os.File{socket} // fd 3, so that connections wait until it serves them
	p.command.Stdout, p.command.Stderr = &p.says, &p.says
	if err := p.command.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

// Close ends the process, and returns what it said.
func (p *proxy) Close() string {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
	_ = os.RemoveAll(p.dir)
	return p.says.String()
}
