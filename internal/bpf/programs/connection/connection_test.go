package connection_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/srodi/ebpf-server/internal/bpf/bpftest"
	"github.com/srodi/ebpf-server/internal/bpf/programs/connection"
)

func TestSmoke(t *testing.T) {
	r := bpftest.Start(t, connection.Monitor)
	ns := bpftest.NewNetNS(t, "smoke")
	ns.Do(t, func() {
		l, err := net.Listen("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(io.Discard, c)
			c.Write(make([]byte, 50))
			c.Close()
		}()
		c, err := net.Dial("tcp4", "127.0.0.1:7001")
		if err != nil {
			t.Error(err)
			return
		}
		c.Write(make([]byte, 100))
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
		_, err = net.Dial("tcp4", "127.0.0.1:7002")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		_, err = net.Dial("tcp4", "192.0.2.1:7002")
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Error(err)
		}
		u, err := net.Dial("udp4", "127.0.0.1:7003")
		u.Write(make([]byte, 10))
		u.Close()
	})
	_ = os.Getpid
	_ = strconv.Itoa
	for _, e := range r.Events(t, ns) {
		t.Log(e)
	}
	t.Log(r.LostEvents(), r.Status())
}
