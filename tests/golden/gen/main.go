// Command golden writes the profiles in ../go*: it runs a small service that allocates, burns,
// blocks and leaks, and saves what its own net/http/pprof answers over loopback.
//
//	CGO_ENABLED=0 go build -trimpath -o /app/golden . && /app/golden -out ../go1.26
//
// Set GOEXPERIMENT=goroutineleakprofile where the toolchain has that as an experiment (1.26). The
// binary's path gets into the profiles, so build it at one that says nothing about your machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	_ "net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

type node struct {
	payload [4096]byte
	next    *node
}

type registry struct {
	mu       sync.Mutex
	sessions map[string][]byte
	list     *node
}

var kept registry

func (r *registry) remember(key string, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions == nil {
		r.sessions = make(map[string][]byte)
	}
	r.sessions[key] = newSession(size)
}

// newSession is small enough to be inlined into its caller.
func newSession(size int) []byte { return make([]byte, size) }

// grow is recursive, so that one function stands several times in a stack.
func grow(depth int) *node {
	if depth == 0 {
		return nil
	}
	n := new(node)
	n.next = grow(depth - 1)
	return n
}

func transform[T, U any](items []T, f func(T) U) []U {
	var out []U
	for _, item := range items {
		out = append(out, f(item))
	}
	return out
}

func allocate() {
	for i := 0; i < 300; i++ {
		kept.remember(fmt.Sprintf("session-%d", i), 16<<10)
	}
	kept.list = grow(24)
	lengths := transform(make([]string, 1<<14), func(s string) int { return len(s) })
	runtime.KeepAlive(lengths)
}

var sink uint64

func burn(until time.Time) {
	for time.Now().Before(until) {
		for i := uint64(0); i < 200_000; i++ {
			sink = sink*31 + i
		}
	}
}

func contend() {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := 0; i < 4; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := 0; j < 20; j++ {
				mu.Lock()
				time.Sleep(time.Millisecond)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
}

func leakGoroutines(count int) {
	for i := 0; i < count; i++ {
		reply := make(chan int)
		go func() { reply <- i }()
	}
}

func save(dir, name, url string) {
	answer, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		log.Printf("%s: %s, not saved", name, answer.Status)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
		log.Fatal(err)
	}
}

func main() {
	out := flag.String("out", ".", "directory to write to")
	flag.Parse()
	runtime.MemProfileRate = 64 << 10
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)

	allocate()
	contend()
	leakGoroutines(7)
	runtime.GC()

	server := httptest.NewServer(http.DefaultServeMux)
	defer server.Close()
	base := server.URL + "/debug/pprof/"
	save(*out, "heap.pb.gz", base+"heap?gc=1")
	save(*out, "heap_legacy.txt", base+"heap?debug=1")
	save(*out, "allocs.pb.gz", base+"allocs")
	save(*out, "goroutine.pb.gz", base+"goroutine")
	save(*out, "block.pb.gz", base+"block")
	save(*out, "mutex.pb.gz", base+"mutex")
	save(*out, "threadcreate.pb.gz", base+"threadcreate")
	save(*out, "goroutineleak.pb.gz", base+"goroutineleak")

	go pprof.Do(context.Background(), pprof.Labels("route", "/checkout", "tenant", "blue"),
		func(context.Context) { burn(time.Now().Add(1200 * time.Millisecond)) })
	save(*out, "cpu.pb.gz", base+"profile?seconds=1")

	go func() {
		time.Sleep(300 * time.Millisecond)
		kept.list = grow(60)
		runtime.GC()
	}()
	save(*out, "heap_delta.pb.gz", base+"heap?seconds=1")
	runtime.KeepAlive(&kept)
}
