// A service that shows its profiles to its own machine only: pprof on a unix socket of mode 0600, with
// a mux of its own. The public port serves the application and nothing else.
//
// Usage: go-unix-pprof -listen 127.0.0.1:8080 -pprof /run/app/pprof.sock
package main

import (
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strconv"
	"syscall"
)

var kept [][]byte

// hoard keeps what it allocates, so that the example has something to show.
func hoard(kib int) {
	for ; kib > 0; kib-- {
		block := make([]byte, 1024)
		block[0] = 1 // memory that is never written to is not there
		kept = append(kept, block)
	}
}

// profiles is a mux of its own: importing net/http/pprof also registers on http.DefaultServeMux, so a
// public server must never use that one (its Handler must not be nil).
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	// Not pprof.Cmdline: the command line may hold secrets.
	return mux
}

func listenPrivately(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The socket is made with the mode that the mask leaves: there is no moment when others can enter.
	defer syscall.Umask(syscall.Umask(0o177))
	return net.Listen("unix", path)
}

func main() {
	address := flag.String("listen", "127.0.0.1:8080", "where the application is served")
	socket := flag.String("pprof", "/run/app/pprof.sock", "unix socket of the profiles")
	flag.Parse()

	private, err := listenPrivately(*socket)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(private, profiles())) }()

	public := http.NewServeMux()
	public.HandleFunc("/hoard", func(w http.ResponseWriter, r *http.Request) {
		kib, _ := strconv.Atoi(r.URL.Query().Get("kib"))
		hoard(kib)
		w.Write([]byte("ok\n"))
	})
	log.Fatal(http.ListenAndServe(*address, public))
}
