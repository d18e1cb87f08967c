package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/ampauth/ampauth"
)

// uploads measures what memory it takes to send a file that has to be sent twice.
func uploads(o Options) (Section, error) {
	size := pick[int64](o, 256<<20, 16<<20)
	dir, err := os.MkdirTemp("", "ampauth-bench-")
	if err != nil {
		return Section{}, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "upload")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return Section{}, err
	}
	if err := os.Truncate(path, size); err != nil { // it takes no room on the disk
		return Section{}, err
	}

	contestants := append([]layer{{"ampauth", ampauthUpload}}, retryLayers[1:]...)
	contestants = append(contestants, layer{"net/http alone, by hand", sendTwice})
	if _, err := upload(contestants[0], path, size); err != nil { // fills the cache of the file system
		return Section{}, err
	}
	rounds := pick(o, 3, 1)
	all := make([][]transfer, len(contestants))
	for round := range rounds {
		for i, c := range contestants {
			u, err := upload(c, path, size)
			if err != nil {
				return Section{}, fmt.Errorf("%s: %w", c.Name, err)
			}
			all[i] = append(all[i], u)
			o.progress(round*len(contestants)+i+1, rounds*len(contestants))
		}
	}
	t := table("", "contestant", "sent whole", "peak of the heap", "allocated in all", "time")
	var ours float64
	for i, c := range contestants {
		whole, peak, allocated, times := 0, 0., 0., []float64(nil)
		for _, u := range all[i] {
			whole, peak, allocated, times = max(whole, u.whole), max(peak, u.peak), max(allocated, u.allocated), append(times, u.took.Seconds())
		}
		t.add(c.Name, fmt.Sprintf("%d times", whole), asBytes(peak), asBytes(allocated), asTime(median(times)))
		if i == 0 {
			ours = peak
		}
	}
	const limit = 4 << 20
	return Section{
		Text:   fmt.Sprintf("PUT of a file of %s over loopback. The server reads all of it, answers 503, and takes it the second time. All get the same request: its Body is the *os.File, its GetBody opens the file once more. (ampauth calls GetBody, go-retryablehttp, failsafe-go and azcore seek.) The heap is that of client and server, above what it was before. The time tells how a body is sent: an *os.File by sendfile, which over loopback takes longer than a copy; a body that is wrapped, as by those who seek, is copied. Rounds: %d; shown are the most memory and the median of the times.", asBytes(float64(size)), rounds),
		Tables: []Table{t},
		Goals:  []Goal{counted("upload of "+asBytes(float64(size))+" sent twice, peak of the heap", "itself", "at most "+asBytes(limit), asBytes(ours), ours <= limit)},
	}, nil
}

// ampauthUpload goes by the method, since AMP has no such route.
func ampauthUpload(s setup) sender {
	t := &ampauth.RetryTransport{Base: s.Base, Classify: ampauth.ClassifyHTTP,
		Retry: ampauth.RetryConfig{MaxAttempts: attempts, BaseDelay: s.BaseDelay, MaxDelay: s.MaxDelay, Timeout: -1}}
	return t.RoundTrip
}

// sendTwice is what everybody does here, without any layer.
func sendTwice(s setup) sender {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := s.Base.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
		return s.Base.RoundTrip(req)
	}
}

// A transfer is how an upload went.
type transfer struct {
	whole           int // how often the server got all of it
	peak, allocated float64
	took            time.Duration
}

func upload(c layer, path string, size int64) (transfer, error) {
	var whole atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != size {
			return
		}
		if whole.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	s := setup{Base: base, URL: server.URL + "/api", BaseDelay: 10 * time.Millisecond, MaxDelay: 100 * time.Millisecond}
	send := c.Over(s.withDefaults())

	file, err := os.Open(path)
	if err != nil {
		return transfer{}, err
	}
	defer file.Close()
	req, err := http.NewRequest(http.MethodPut, s.URL+"/files/1", file)
	if err != nil {
		return transfer{}, err
	}
	req.ContentLength = size
	req.GetBody = func() (io.ReadCloser, error) { return os.Open(path) }

	debug.FreeOSMemory()
	before := heapNow()
	watch := watchHeap()
	began := time.Now()
	if err := finish(send(req)); err != nil {
		watch.stop()
		return transfer{}, err
	}
	took := time.Since(began)
	return transfer{int(whole.Load()), watch.stop() - before.live, heapNow().allocated - before.allocated, took}, nil
}

type heap struct{ live, allocated float64 }

func heapNow() heap {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return heap{float64(samples[0].Value.Uint64()), float64(samples[1].Value.Uint64())}
}

// A heapWatch looks at the heap every other millisecond.
type heapWatch struct {
	quit chan struct{}
	peak chan float64
}

func watchHeap() heapWatch {
	w := heapWatch{make(chan struct{}), make(chan float64)}
	go func() {
		peak := 0.
		for {
			peak = max(peak, heapNow().live)
			select {
			case <-w.quit:
				w.peak <- peak
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return w
}

func (w heapWatch) stop() (peak float64) {
	close(w.quit)
	return <-w.peak
}
