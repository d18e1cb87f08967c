package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ampauth/ampauth"
	"github.com/ampauth/ampauth/internal/fakeamp"
)

const demoUsage = `usage: ampauth demo [flags]

Runs workers that read and issue through one client, half of it by Once, against
a fake AMP on a loopback socket, which revokes tokens, has them refreshed by
somebody else, is slow to log in, answers 429 and 503, and resets connections.
In the end it compares what the workers were told with what the fake really did.

What it prints in the end fits a terminal of 24 rows and 80 columns, and says
what its words mean; -verbose prints the rest.

The exit code is 0 if the verdict is PASS. Ctrl-C ends it with what happened
until then, the verdict INCOMPLETE and exit code 1; a second one at once.

`

// demoOptions are the flags.
type demoOptions struct {
	duration, lifetime time.Duration
	workers            int
	seed               uint64
	json, verbose      bool
}

const (
	// A Retry-After is in whole seconds. A shorter life would end during the
	// wait, and the login after that would be nobody's revocation.
	minLifetime = 2 * time.Second
	maxLifetime = time.Minute
	maxWorkers  = 64
)

func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o demoOptions
	flags := flag.NewFlagSet("ampauth demo", flag.ContinueOnError)
	flags.DurationVar(&o.duration, "duration", 10*time.Second, "how `long`; three rounds of faults are finished in any case")
	flags.IntVar(&o.workers, "workers", 8, "`number` of concurrent workers, up to 64")
	flags.DurationVar(&o.lifetime, "lifetime", minLifetime, "`time` that a token lives, from 2s to 1m")
	flags.Uint64Var(&o.seed, "seed", 0, "`number` that fixes the faults and their order; 0 draws one")
	flags.BoolVar(&o.json, "json", false, "print one JSON object on stdout, and the live lines on stderr")
	flags.BoolVar(&o.verbose, "verbose", false, "print all figures, faults and words")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), demoUsage)
		flags.PrintDefaults()
	}
	if code, ok := parse(flags, args, stdout, stderr); !ok {
		return code
	}
	if fault := o.fault(flags.NArg()); fault != "" {
		return misused(flags, stderr, fault)
	}
	if o.seed == 0 {
		o.seed = 1 + rand.Uint64N(999_999) // short enough to type again
	}

	d, err := startDemo(o, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "ampauth demo:", err)
		return exitError
	}
	live := stdout
	if o.json {
		live = stderr
	}
	fmt.Fprint(live, o.introduction())
	v := newView(live, !o.json && isTerminal(stdout))
	v.verbose = o.verbose
	r := d.run(ctx, v)
	v.clear()
	if err := d.close(); err != nil {
		fmt.Fprintln(stderr, "ampauth demo:", err)
		return exitError
	}
	if o.json {
		err = r.writeJSON(stdout)
	} else {
		err = r.writeTable(stdout, o.verbose)
	}
	if err != nil {
		fmt.Fprintln(stderr, "ampauth demo:", err)
		return exitError
	}
	if r.Verdict != pass {
		return exitError
	}
	return exitOK
}

// introduction says what is shown, what to look for, and why a figure that looks like a
// fault is none.
func (o demoOptions) introduction() string {
	workers := fmt.Sprintf("%d workers issue and read", o.workers)
	if o.workers == 1 {
		workers = "1 worker issues and reads"
	}
	return fmt.Sprintf("Shown (seed %d): %s by one client; a fake AMP fails.\n", o.seed, workers) +
		"Look for: PASS in each line of the verdict, and nothing performed twice.\n" +
		"\"3 performed, 3 not\" is right: a reset hides which, so neither is sent again.\n"
}

// fault says what is wrong with the command line, "" for nothing.
func (o demoOptions) fault(arguments int) string {
	switch {
	case arguments > 0:
		return "takes no arguments"
	case o.duration <= 0:
		return "-duration must be above zero"
	case o.lifetime < minLifetime || o.lifetime > maxLifetime:
		return fmt.Sprintf("-lifetime must be from %v to %v", minLifetime, maxLifetime)
	case o.workers < 1 || o.workers > maxWorkers:
		return fmt.Sprintf("-workers must be from 1 to %d", maxWorkers)
	}
	return ""
}

// A demo is the fake, the client, and those who keep both busy.
type demo struct {
	options  demoOptions
	fake     *fakeamp.Server
	server   *http.Server
	served   chan error // what Serve returned
	client   *ampauth.Client
	load     *load
	director *director
}

// The fake's only account.
const (
	demoUser     = "issuer"
	demoPassword = "correct horse"
)

func startDemo(o demoOptions, stderr io.Writer) (*demo, error) {
	fake := fakeamp.New(fakeamp.Config{
		Users: map[string]string{demoUser: demoPassword},
		// Longer than the client assumes, as for a client that is careful, and by
		// so much that a machine that is held up for a second changes nothing. AMP
		// answers a login with the token there is: of one that the client believes
		// expired there must be enough left to be refreshed ahead of time again.
		Lifetime: 3 * o.lifetime,
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	base := "http://" + listener.Addr().String() + "/api"
	retry := ampauth.RetryConfig{
		MaxAttempts: maxAttempts,
		// Short, so that there is time for many faults.
		BaseDelay: 20 * time.Millisecond,
		MaxDelay:  200 * time.Millisecond,
		Timeout:   5 * time.Second,
	}
	client, err := ampauth.NewClient(ampauth.Config{
		BaseURL:     base,
		Credentials: ampauth.Credentials{Username: demoUser, Password: ampauth.SecretFromString(demoPassword)},
		Lifetime:    o.lifetime,
		Retry:       retry,
	})
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	d := &demo{
		options: o,
		fake:    fake,
		server: &http.Server{
			Handler:           fake,
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          log.New(stderr, "ampauth demo: fake AMP: ", 0),
		},
		served: make(chan error, 1),
		client: client,
		load:   newLoad(client, base, retry, o),
	}
	d.director = newDirector(d)
	go func() { d.served <- d.server.Serve(listener) }()
	return d, nil
}

// run keeps the client busy for the duration, or until ctx ends, and returns
// what came of it.
func (d *demo) run(ctx context.Context, v *view) *report {
	began := time.Now()
	working, stopWork := context.WithCancel(context.Background())
	viewing, stopView := context.WithCancel(context.Background())
	defer stopView()
	var workers, viewer sync.WaitGroup
	for n := range d.options.workers {
		workers.Go(func() { d.load.work(working, n) })
	}
	viewer.Go(func() { v.show(viewing, func() snapshot { return d.snapshot(began) }) })

	// The workers outlive the director, and none of their calls is cut short, by
	// Ctrl-C neither: a revocation is healed by the requests that come after it,
	// and what was cut would have to be left out of the verdict.
	d.director.direct(ctx, began)
	stopWork()
	workers.Wait()
	stopView()
	viewer.Wait()

	return d.report(ctx.Err() != nil, time.Since(began))
}

// close ends all that startDemo began, and waits for it.
func (d *demo) close() error {
	err := d.client.Close()
	d.fake.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = errors.Join(err, d.server.Shutdown(ctx))
	if served := <-d.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
