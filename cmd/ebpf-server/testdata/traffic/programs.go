package main

import (
	"errors"
	"net"
)

// enough connections at once keep two processors busy; with 8, a third of them is idle.
const enough = 64

// programs makes n connections to a server that ends each of them, so that its side
// waits in TIME_WAIT and clients do not run out of ports.
func programs(n int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				reply(c)
			}()
		}
	}()
	return errors.Join(connect(l.Addr().String(), n, enough, true), l.Close())
}
