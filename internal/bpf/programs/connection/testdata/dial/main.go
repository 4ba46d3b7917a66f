// Command dial connects once and ends: dial ADDRESS. With more arguments it
// executes them afterwards, as the same process: dial ADDRESS FILE ARGUMENTS.
package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

func main() {
	c, err := net.Dial("tcp4", os.Args[1])
	if err == nil {
		c.Close()
	}
	if len(os.Args) > 3 { // a script adds one
		err := syscall.Exec(os.Args[2], os.Args[2:], os.Environ())
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
