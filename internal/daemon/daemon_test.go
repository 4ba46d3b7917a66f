package daemon_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/spf13/pflag"

	"github.com/srodi/ebpf-server/internal/config"
	"github.com/srodi/ebpf-server/internal/daemon"
)

func load(t *testing.T, path string) config.Config {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse([]string{"--config", path}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(flags, daemon.Known())
	if err != nil {
		t.Fatal(err)
	}
	c.File = ""
	return c
}

// The file that we hand out says what holds without it, for the monitors that
// there really are.
func TestShippedConfigurationIsTheDefault(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shipped, builtIn := load(t, "../../configs/ebpf-server.yaml"), load(t, empty)
	if !reflect.DeepEqual(shipped, builtIn) {
		t.Errorf("configs/ebpf-server.yaml gives\n%+v\nthe built-in defaults are\n%+v", shipped, builtIn)
	}
}
