package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/srodi/ebpf-server/internal/bpf"
	"github.com/srodi/ebpf-server/internal/config"
	"github.com/srodi/ebpf-server/internal/privilege"
)

// giveUpPrivileges leaves the program with the capabilities that it goes on
// needing once the monitors are attached. As root on a current kernel that is
// none: what it reads of the kernel it has open, and root owns the other files.
// A program that cannot give them up records all the same.
func giveUpPrivileges(load func() (config.Config, error), db string, log *slog.Logger) {
	var needed []cap.Value
	if privilege.Without(bpf.ReadOpenMap) != nil {
		needed = append(needed, cap.BPF)
	}
	unreadable := privilege.Without(func() error { return readAgain(load, db) })
	switch {
	case os.Geteuid() != 0: // root owns the files that containers are named by
		needed = append(needed, cap.DAC_READ_SEARCH)
	case errors.Is(unreadable, fs.ErrPermission):
		log.Warn("keeps CAP_DAC_READ_SEARCH for files that do not belong to root (chown root, also for their folders)", "error", unreadable)
		needed = append(needed, cap.DAC_READ_SEARCH)
	}
	kept, err := privilege.Keep(needed...)
	if err != nil {
		log.Error("capabilities cannot be given up", "error", err)
		return
	}
	names := []string{}
	for _, c := range kept {
		names = append(names, strings.ToUpper(c.String()))
	}
	log.Info("capabilities are given up", "kept", names)
}

// readAgain opens what is opened by name while the program runs: the db file
// for snapshots, and on SIGHUP the files of the configuration.
func readAgain(load func() (config.Config, error), db string) error {
	file, err := os.Open(db)
	if err != nil {
		return err
	}
	_, err = load()
	return errors.Join(err, file.Close())
}
