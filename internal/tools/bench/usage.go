package main

import (
	"bufio"
	"bytes"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf returns the time on a processor of this process, or of this thread.
func cpuOf(who int) time.Duration {
	var u unix.Rusage
	if unix.Getrusage(who, &u) != nil {
		return 0 // it cannot fail for these
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// aside keeps account of work that does not belong to what is measured.
type aside struct {
	wall, cpu  time.Duration // of the work
	background time.Duration // processor time of all other threads meanwhile
}

// do runs work that is not to be counted. What others do in the background at
// the same time is: it is charged as if it had been waited for.
func (a *aside) do(work func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wall, own, all := time.Now(), cpuOf(unix.RUSAGE_THREAD), cpuOf(unix.RUSAGE_SELF)
	work()
	own, all = cpuOf(unix.RUSAGE_THREAD)-own, cpuOf(unix.RUSAGE_SELF)-all
	took := time.Since(wall)
	a.wall += took
	a.cpu += own
	a.background += min(max(all-own, 0), took)
}

// settle waits until the process has done nothing for so long and returns when
// it last did something: what goes on in the background belongs to the figures.
func settle(quiet time.Duration) (last time.Time) {
	const look = 50 * time.Millisecond
	last = time.Now()
	cpu := cpuOf(unix.RUSAGE_SELF)
	for time.Since(last) < quiet {
		time.Sleep(look)
		now := cpuOf(unix.RUSAGE_SELF)
		if now-cpu > look/10 {
			last = time.Now()
		}
		cpu = now
	}
	return last
}

// memoryWatch watches the anonymous memory of this process: pages of files, which
// the kernel takes back when it likes, do not count.
type memoryWatch struct {
	stop chan struct{}
	peak chan int64
}

const memoryInterval = 20 * time.Millisecond

func watchMemory() *memoryWatch {
	m := &memoryWatch{make(chan struct{}), make(chan int64)}
	go func() {
		peak := anonymous()
		ticker := time.NewTicker(memoryInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				peak = max(peak, anonymous())
			case <-m.stop:
				m.peak <- max(peak, anonymous())
				return
			}
		}
	}()
	return m
}

// end returns the largest amount that was seen, in bytes.
func (m *memoryWatch) end() int64 {
	close(m.stop)
	return <-m.peak
}

// anonymous is RssAnon of /proc/self/status.
func anonymous() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		if kB, ok := bytes.CutPrefix(lines.Bytes(), []byte("RssAnon:")); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(kB, []byte("kB")))), 10, 64)
			return n << 10
		}
	}
	return 0
}
