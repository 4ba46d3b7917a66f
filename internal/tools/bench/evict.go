package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// evict empties the page cache of a peer's files and returns which share of them
// is still there. What a hypervisor keeps below this machine, nobody here can see.
func evict(dir string) (stayed float64, how string, err error) {
	how = "posix_fadvise"
	for _, path := range filesIn(dir) {
		if err := forget(path); err != nil {
			return 0, "", err
		}
	}
	if stayed, err = residentShare(dir); err != nil || stayed < 0.01 {
		return stayed, how, err
	}
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err == nil {
		how += " and drop_caches"
	} else {
		how += " (drop_caches needs root)"
	}
	stayed, err = residentShare(dir)
	return stayed, how, err
}

// forget writes back what is dirty: only clean pages are given up.
func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop the cache of %s: %w", path, err)
	}
	return nil
}

// residentShare asks the kernel which pages of the files are in memory.
func residentShare(dir string) (float64, error) {
	resident, pages := 0, 0
	for _, path := range filesIn(dir) {
		r, n, err := residentPages(path)
		if err != nil {
			return 0, fmt.Errorf("look at the cache of %s: %w", path, err)
		}
		resident, pages = resident+r, pages+n
	}
	return float64(resident) / float64(max(pages, 1)), nil
}

func residentPages(path string) (resident, pages int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, 0, err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Munmap(mapped) //nolint:errcheck // it was mapped just now
	state := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	if err := mincore(mapped, state); err != nil {
		return 0, 0, err
	}
	for _, s := range state {
		resident += int(s & 1)
	}
	return resident, len(state), nil
}

func mincore(mapped, state []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&state[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
