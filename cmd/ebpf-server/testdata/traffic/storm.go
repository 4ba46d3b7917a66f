package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Two threads keep two cores busy: each has both ends of its connections, so that
// it never waits for the other, and blocking sockets, so that Go's poller costs
// nothing.
const threads = 2

// storm makes n connections.
func storm(n int) error {
	var ends [threads]*endpoint
	for i := range ends {
		var err error
		if ends[i], err = newEndpoint(7000 + i); err != nil {
			return err
		}
	}
	ended := make(chan error, threads)
	for i, e := range ends {
		go func() {
			runtime.LockOSThread()
			ended <- e.exchange(n/threads + min(1, max(0, n%threads-i)))
		}()
	}
	for range ends {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// hold opens n connections, says so and keeps them until its input ends.
func hold(n int) error {
	e, err := newEndpoint(7000)
	if err != nil {
		return err
	}
	var open []int
	for i := range n {
		client, served, err := e.open(i)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		open = append(open, client, served)
	}
	fmt.Println("holding")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, fd := range open {
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// endpoint is a port on this host, and who connects to it.
type endpoint struct{ listener, port int }

func newEndpoint(port int) (*endpoint, error) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrInet4{Port: port})
	}
	if err == nil {
		err = unix.Listen(listener, 8)
	}
	return &endpoint{listener, port}, err
}

// open returns both ends of connection i. Many addresses take turns: those who
// closed first leave their port in TIME_WAIT for a minute.
func (e *endpoint) open(i int) (client, served int, err error) {
	if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	to := unix.SockaddrInet4{Port: e.port, Addr: [4]byte{127, 0, 0, byte(1 + i%250)}}
	if err = unix.Connect(client, &to); err != nil {
		return 0, 0, err
	}
	served, _, err = unix.Accept4(e.listener, unix.SOCK_CLOEXEC)
	return client, served, err
}

func (e *endpoint) exchange(n int) error {
	buffer := make([]byte, question)
	for i := range n {
		client, served, err := e.open(i)
		if err == nil {
			err = pass(client, served, buffer)
		}
		if err == nil {
			err = pass(served, client, buffer[:answer])
		}
		if err == nil {
			err = unix.Close(client)
		}
		if err == nil {
			err = unix.Close(served)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return nil
}

// pass sends and receives so much: one segment, so it is read as it was written.
func pass(from, to int, data []byte) error {
	if _, err := unix.Write(from, data); err != nil {
		return err
	}
	n, err := unix.Read(to, data)
	if err == nil && n != len(data) {
		err = fmt.Errorf("read %d bytes of %d", n, len(data))
	}
	return err
}
