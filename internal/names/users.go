package names

import (
	"bufio"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Users are the users of the host's passwd file. Those that only a directory
// service knows have no name here, nor have the ids of users that exist in a
// container alone.
type Users struct {
	path string
	log  *slog.Logger
	seen os.FileInfo // only Refresh; nil before the file could be read

	names atomic.Pointer[map[uint32]string]
}

func newUsers(path string, log *slog.Logger) *Users {
	u := &Users{path: path, log: log}
	u.names.Store(&map[uint32]string{})
	u.Refresh()
	return u
}

// Name returns the name of a user, or "".
func (u *Users) Name(uid uint32) string { return (*u.names.Load())[uid] }

// Refresh reads the file again if it was changed. One goroutine at a time may
// call it.
func (u *Users) Refresh() {
	info, err := os.Stat(u.path)
	if err != nil || (u.seen != nil && os.SameFile(info, u.seen) && info.ModTime().Equal(u.seen.ModTime()) && info.Size() == u.seen.Size()) {
		return
	}
	names, err := readPasswd(u.path)
	if err != nil {
		u.log.Debug("users have no names", "error", err)
		return
	}
	u.seen = info
	u.names.Store(&names)
}

func readPasswd(path string) (map[uint32]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	names := map[uint32]string{}
	for lines := bufio.NewScanner(file); ; {
		if !lines.Scan() {
			return names, lines.Err()
		}
		// NAME:PASSWORD:UID:...; the first of several names is the one that the
		// C library gives.
		fields := strings.SplitN(lines.Text(), ":", 4)
		if len(fields) < 4 || fields[0] == "" {
			continue
		}
		uid, err := strconv.ParseUint(fields[2], 10, 32)
		if _, known := names[uint32(uid)]; err == nil && !known {
			names[uint32(uid)] = fields[0]
		}
	}
}
