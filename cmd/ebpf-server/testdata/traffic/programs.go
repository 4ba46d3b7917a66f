package main

import (
	"errors"
	"io"
	"net"
)

// atOnce are enough to keep two processors busy; with 8, a third of them is idle.
const atOnce = 64

// programs makes n connections to a server that ends each of them, so that its side
// waits in TIME_WAIT and clients do not run out of ports.
func programs(n int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var ended [atOnce]chan error
	for i := range ended {
		ended[i] = make(chan error, 1)
		go func() {
			for range n/atOnce + min(1, max(0, n%atOnce-i)) {
				if err := ask(l.Addr().String()); err != nil {
					ended[i] <- err
					return
				}
			}
			ended[i] <- nil
		}()
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go tell(c)
		}
	}()
	for _, end := range ended {
		err = errors.Join(err, <-end)
	}
	return errors.Join(err, l.Close())
}

func ask(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, question)); err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, c)
	if got != answer {
		err = errors.Join(err, io.ErrUnexpectedEOF)
	}
	return err
}

func tell(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, question)); err != nil {
		fail(err)
	}
	if _, err := c.Write(make([]byte, answer)); err != nil {
		fail(err)
	}
}
