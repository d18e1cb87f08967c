package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestProxysSocketIsOfItsUserAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	configure(t)
	dir, err := os.MkdirTemp("", "amp") // the path of a socket has to be short
	mustDo(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	proxy := start(t, 1, "proxy", "-unix", path)
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://localhost/managers/me")
	mustDo(t, err)
	mustDo(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Errorf("HTTP %d", resp.StatusCode)
	}
	client.CloseIdleConnections()
	if got := runCommand(t.Context(), "proxy", "-unix", path); got.code != exitError || !strings.Contains(got.stderr, "somebody may listen") {
		t.Errorf("a second one: %+v", got)
	}
	mustDo(t, proxy.cmd.Process.Kill())
	<-proxy.read
	_ = proxy.cmd.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal("a killed process leaves its socket, and this one did not")
	}
	proxy = start(t, 1, "proxy", "-unix", path) // in the place of the one that nobody listens on
	if got := proxy.stop(endings[1]); got.code != exitOK || got.stdout != "unix:"+path+"\n" {
		t.Errorf("%+v", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
	mustDo(t, os.WriteFile(path, []byte("precious"), 0o600))
	if got := runCommand(t.Context(), "proxy", "-unix", path); got.code != exitError || !strings.Contains(got.stderr, "no socket") {
		t.Errorf("%+v", got)
	}
	if got := runCommand(t.Context(), "proxy", "-unix", filepath.Join(dir, strings.Repeat("a", 200), "s")); got.code != exitError {
		t.Errorf("%+v", got)
	}
}
