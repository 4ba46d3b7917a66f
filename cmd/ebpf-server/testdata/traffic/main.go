// Command traffic makes TCP connections of known number and size for the tests:
//
//	traffic server ADDRESS N   accepts N connections, on each takes 100 bytes and gives 50
//	traffic client ADDRESS N   makes them, WORKERS at a time
//	traffic programs N         does both, in one process, as programs in Go do
//	traffic storm N            does both, on two threads, as fast as it goes
//	traffic hold N             holds N connections open until its input ends
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	workers  = 8
	question = 100
	answer   = 50
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: traffic server|client ADDRESS N, traffic programs|storm|hold N"))
	}
	n, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil {
		fail(err)
	}
	switch os.Args[1] {
	case "server":
		err = serve(os.Args[2], n)
	case "client":
		err = connect(os.Args[2], n, workers, false)
	case "programs":
		err = timed(n, programs)
	case "storm":
		err = timed(n, storm)
	case "hold":
		err = hold(n)
	default:
		err = fmt.Errorf("no role %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

// timed prints how long it takes to make n connections, in nanoseconds.
func timed(n int, do func(n int) error) error {
	began := time.Now()
	if err := do(n); err != nil {
		return err
	}
	fmt.Println(time.Since(began).Nanoseconds())
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(address string, n int) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	var open sync.WaitGroup
	for range n {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		open.Go(func() {
			defer c.Close()
			reply(c)
			_, _ = c.Read(make([]byte, 1)) // until the client closes
		})
	}
	open.Wait()
	return nil
}

func reply(c net.Conn) {
	if _, err := io.CopyN(io.Discard, c, question); err != nil {
		fail(err)
	}
	if _, err := c.Write(make([]byte, answer)); err != nil {
		fail(err)
	}
}

// connect makes n connections, so many at once. One side of each is the first to close.
func connect(address string, n, atOnce int, serverFirst bool) error {
	var running sync.WaitGroup
	for worker := range atOnce {
		running.Go(func() {
			for range n/atOnce + min(1, max(0, n%atOnce-worker)) {
				if err := exchange(address, serverFirst); err != nil {
					fail(err)
				}
			}
		})
	}
	running.Wait()
	return nil
}

func exchange(address string, serverFirst bool) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, question)); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, c, answer)
	if err != nil || !serverFirst {
		return err
	}
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("read %d bytes after the answer: %w", n, err)
	}
	return nil
}
