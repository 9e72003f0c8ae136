// Command goleaks serves requests by the clock and leaks in one of three ways, or not.
//
//	goleaks KIND leak|fixed ADDRESS TICKS_PER_S
package main

import (
	"net/http"
	_ "net/http/pprof"
	"os"
	"strconv"
	"time"
)

const (
	size = 20_000 // bytes that a request makes
	kept = 60     // requests whose memory a repaired twin may hold
)

var (
	sessions = map[int][][]byte{}
	headers  [][]byte
)

// payload is what a request makes: twenty blocks.
func payload() [][]byte {
	blocks := make([][]byte, 20)
	for i := range blocks {
		blocks[i] = make([]byte, size/20)
		blocks[i][0] = 1
	}
	return blocks
}

// remember keeps sessions in a map; fixed, they end.
func remember(number int, fixed bool) {
	sessions[number] = payload()
	if fixed {
		delete(sessions, number-kept)
	}
}

// keepHeader keeps a few bytes of each body, and with them the whole array; fixed, it copies them.
func keepHeader(number int, fixed bool) {
	body := make([]byte, size)
	body[0] = byte(number)
	if fixed {
		headers = append(headers, append([]byte(nil), body[:16]...))
		return
	}
	headers = append(headers, body[:16])
}

// waitReceipt holds a request's memory until an answer comes, which none does.
func waitReceipt(data [][]byte, answer <-chan int, patience time.Duration) {
	select {
	case <-answer:
	case <-time.After(patience):
	}
	data[0] = nil
}

// askReceipt starts a goroutine that waits for ever; fixed, it gives up soon.
func askReceipt(number int, fixed bool) {
	patience := time.Hour
	if fixed {
		patience = time.Second / 2
	}
	go waitReceipt(payload(), make(chan int), patience)
}

func main() {
	serve := map[string]func(int, bool){
		"go map":        remember,
		"go slice":      keepHeader,
		"go goroutines": askReceipt,
	}[os.Args[1]]
	fixed := os.Args[2] == "fixed"
	ticksPerSec, err := strconv.ParseFloat(os.Args[4], 64)
	if err != nil {
		panic(err)
	}
	go func() { panic(http.ListenAndServe(os.Args[3], nil)) }()
	began := time.Now()
	for number := 0; ; {
		for due := int(time.Since(began).Seconds() * ticksPerSec); number < due; number++ {
			serve(number, fixed)
		}
		time.Sleep(time.Duration(float64(time.Second) / ticksPerSec))
	}
}
