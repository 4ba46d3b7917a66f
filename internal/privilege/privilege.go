// Package privilege gives up rights that the process needs only to start.
package privilege

import (
	"fmt"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Keep leaves the process, in all its threads and for good, with those of the
// given capabilities that it has, and with none that a program it starts could
// get: no file on disk, not even one of root, gives them back. It returns what
// is left.
func Keep(wanted ...cap.Value) (kept []cap.Value, err error) {
	had, left := cap.GetProc(), cap.NewSet()
	for _, c := range wanted {
		if has, err := had.GetFlag(cap.Permitted, c); err == nil && has {
			kept = append(kept, c)
		}
	}
	for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
		if err := left.SetFlag(flag, true, kept...); err != nil {
			return nil, fmt.Errorf("name capabilities: %w", err)
		}
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return nil, fmt.Errorf("set no_new_privs: %w", err)
	}
	// Who may not empty the bounding set is held by no_new_privs alone, which is
	// enough.
	if may, err := had.GetFlag(cap.Effective, cap.SETPCAP); err == nil && may {
		for c := range cap.MaxBits() {
			if err := cap.DropBound(c); err != nil {
				return nil, fmt.Errorf("drop %s from the bounding set: %w", c, err)
			}
		}
	}
	// What is not inheritable leaves the ambient set with it.
	if err := left.SetProc(); err != nil {
		return nil, fmt.Errorf("give up capabilities: %w", err)
	}
	return kept, nil
}

// Without calls f on a thread of its own that has no capabilities, which tells
// whether they are needed for it.
func Without(f func() error) error {
	_, err := cap.FuncLauncher(func(any) error {
		if err := cap.NewSet().SetProc(); err != nil {
			return fmt.Errorf("give up capabilities of a thread: %w", err)
		}
		return f()
	}).Launch(nil)
	return err
}
