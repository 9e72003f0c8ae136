// A Go service for tests: it keeps 4 KiB for each posting and never forgets one.
// Usage: ledger healthy|leaky; prints the port it listens on.
package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"time"
)

type entry [4096]byte

var seen = map[int]*entry{}

func post(number int) {
	kept := new(entry)
	kept[0] = byte(number)
	seen[number] = kept
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go http.Serve(listener, nil)
	for number := 0; ; number++ {
		if os.Args[1] == "healthy" {
			number %= 2000
		}
		for i := 0; i < 8; i++ {
			post(number)
			number++
		}
		time.Sleep(10 * time.Millisecond)
	}
}
