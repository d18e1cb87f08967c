package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

const (
	shutdownLimit = 5 * time.Second // for the requests that are under way
	headerLimit   = 10 * time.Second
	maxHeader     = 64 << 10 // bytes
)

// loopback returns the address to listen on for the value of a -listen, or what is wrong
// with it. No name is looked up: whoever answers for it could lead elsewhere.
func loopback(value string) (address, fault string) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return "", "-listen needs an address and a port, such as 127.0.0.1:0"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "the port of -listen must be a number from 0 to 65535"
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() || ip.Zone() != "" {
		return "", "the host of -listen must be 127.0.0.1, [::1] or localhost: other machines must not reach it"
	}
	return net.JoinHostPort(host, port), ""
}

// serveUntil serves until ctx is done, and then waits a while for what is under way. Before
// that it calls ending, if that is not nil.
func serveUntil(ctx context.Context, server *http.Server, l net.Listener, ending func()) error {
	server.ReadHeaderTimeout, server.MaxHeaderBytes = headerLimit, maxHeader
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if ending != nil {
		ending()
	}
	limited, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	err := server.Shutdown(limited)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(errors.New("some requests were cut off"), server.Close())
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
