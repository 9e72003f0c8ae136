// Command ledger books postings over HTTP and shows its profiles on a second, loopback address.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	_ "net/http/pprof" // registers /debug/pprof/ on http.DefaultServeMux
	"os"
	"runtime"
	"time"
)

func main() {
	// Half a megabyte between samples, Go's default, is coarse for a heap of some dozen.
	runtime.MemProfileRate = 128 << 10
	listen := flag.String("listen", "127.0.0.1:8080", "address of the service")
	profiles := flag.String("pprof", "127.0.0.1:6060", "address of the profiles; keep it on loopback")
	// A key that is this old is not seen again. A day in production; the demo's clock runs faster.
	keyLifetime := flag.Duration("key-lifetime", 10*time.Second, "how long a posting is known")
	flag.Parse()

	// The demo runs each service twice: as the incident found it, and repaired.
	book := NewLedger(os.Getenv("STANCH_DEMO_FIXED") == "1")
	go sweepForEver(book, *keyLifetime)
	go func() { log.Fatal(http.ListenAndServe(*profiles, nil)) }()
	log.Fatal(http.ListenAndServe(*listen, routes(book)))
}

func sweepForEver(book *Ledger, lifetime time.Duration) {
	for range time.Tick(time.Second) {
		book.Sweep(time.Now().Add(-lifetime))
	}
}

// posting is the body of POST /postings. Key makes the request safe to repeat.
type posting struct {
	Key     string  `json:"key"`
	Account string  `json:"account"`
	Cents   []int64 `json:"cents"`
}

func routes(book *Ledger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("/postings", func(w http.ResponseWriter, r *http.Request) {
		var p posting
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&p); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		balance, err := book.Post(p.Key, p.Account, p.Cents)
		if errors.Is(err, ErrNoKey) {
			answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusCreated, map[string]int64{"balance_cents": balance})
	})
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Printf("answer not sent: %v", err)
	}
}
