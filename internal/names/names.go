// Package names finds what people call the users, units, containers and pods of
// a host, in the files that the system and the container runtimes keep. It asks
// nobody: no socket of a runtime, no API server.
package names

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile bounds what is read of a file. Podman's list of all containers is
// the longest, with 600 bytes for each.
const maxFile = 8 << 20

// Host is the files of a host. It is safe for concurrent use.
type Host struct {
	Users *Users

	root string // "/" but in tests
	log  *slog.Logger
}

// NewHost returns the names of the host whose files are below root.
func NewHost(root string, log *slog.Logger) *Host {
	return &Host{Users: newUsers(filepath.Join(root, "etc/passwd"), log), root: root, log: log}
}

// readJSON reads a small file; a file that is not there is fs.ErrNotExist.
func readJSON(path string, to any) error {
	// Whoever can put a FIFO there must not stop the reader.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return fmt.Errorf("read %s: not a file of at most %d bytes", path, maxFile)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// note logs why names are missing. That a file is not there is no news: most
// hosts have one runtime.
func (h *Host) note(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.log.Debug("a name is left out", "error", err)
	}
}

// glob returns the paths below root that match; the pattern is the program's own.
func (h *Host) glob(pattern string) []string {
	found, err := filepath.Glob(filepath.Join(h.root, pattern))
	h.note(err)
	return found
}
