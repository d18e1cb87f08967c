package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/ampauth/ampauth"
	"github.com/hashicorp/go-cleanhttp"
)

const proxyUsage = `usage: ampauth proxy [flags]

Passes requests on to AMP, logged in, for languages that have no client of their
own. What is asked for at http://127.0.0.1:8001/assets is asked for below the
base URL:

  ampauth proxy &
  curl http://127.0.0.1:8001/assets

  ampauth proxy -unix ~/amp.sock &
  curl --unix-socket ~/amp.sock http://localhost/assets

Whoever can connect acts for the account: on a port that is every user of this
machine, on a Unix socket (mode 0600) only you.

Reads and calls that can be repeated pass. A mutation is answered 403: if its
end were in doubt, the program behind the proxy could not know, and would send
it again. So is a login or a refresh, since nobody gets the token. An
Authorization field and cookies are dropped; of the header only what AMP needs
is passed on. Refused are a Host that is not this proxy's, requests from a web
page (Origin, Sec-Fetch-Site), CONNECT, Upgrade, and paths that could lead out
of the base URL.

Each call is tried again, waits, and ends in time as with "ampauth get". A line
for each request goes to stderr, without its query. Ctrl-C or SIGTERM ends it
when the requests under way are answered, after 5 s at most.

`

func runProxy(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ampauth proxy", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8001", "loopback `address` and port;\nport 0 takes a free one")
	socket := flags.String("unix", "", "`path` of a Unix socket, in place of -listen")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), proxyUsage)
		flags.PrintDefaults()
	}
	a, code, ok := configured(flags, args, stdout, stderr)
	if !ok {
		return code
	}
	defer a.Credentials.Password.Destroy()
	address, fault := loopback(*listen)
	listens := false
	flags.Visit(func(f *flag.Flag) { listens = listens || f.Name == "listen" })
	switch {
	case *socket != "" && listens:
		return misused(flags, stderr, "-listen and -unix exclude each other")
	case *socket == "" && fault != "":
		return misused(flags, stderr, fault)
	}

	faults := newStoreFaults()
	a.OnEvent = faults.hear
	pooled := cleanhttp.DefaultPooledTransport()
	pooled.MaxIdleConnsPerHost = 100
	conns := &ampauth.ConnTransport{Base: pooled}
	a.HTTPClient = &http.Client{Transport: &tokenGuard{base: conns}}
	client, err := ampauth.NewClient(a.Config)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitError
	}
	defer func() {
		_ = client.Close()
		conns.CloseIdleConnections()
		faults.print(client.Stats().StoreFaults, stderr)
	}()

	var l net.Listener
	where := ""
	if *socket != "" {
		var remove func()
		l, remove, err = listenUnix(*socket)
		if err == nil {
			defer remove()
			where = "unix:" + printable(*socket)
		}
	} else if l, err = net.Listen("tcp", address); err == nil {
		where = "http://" + l.Addr().String()
	}
	if err != nil {
		fmt.Fprintln(stderr, "ampauth proxy:", err)
		return exitError
	}
	handler := newProxy(a, client.Transport, log.New(stderr, "", log.LstdFlags))
	if *socket == "" {
		handler.port = l.Addr().(*net.TCPAddr).Port
	}
	if _, err := fmt.Fprintln(stdout, where); err != nil {
		_ = l.Close()
		fmt.Fprintln(stderr, "ampauth proxy:", err)
		return exitError
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true}
	fmt.Fprintln(stderr, "ampauth proxy: ready, Ctrl-C ends it")
	err = serveUntil(ctx, server, l, nil)
	fmt.Fprintf(stderr, "ampauth proxy: ended after %d requests\n", handler.requests.Load())
	if err != nil {
		fmt.Fprintln(stderr, "ampauth proxy:", err)
		return exitError
	}
	return exitOK
}
