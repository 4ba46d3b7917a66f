package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is for make install.
func manCommand(root *cobra.Command) *cobra.Command {
	c := command("man DIR", "Write the manual pages, one for each verb, into a folder", "",
		cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			root.DisableAutoGenTag = true // the day of the build is not part of the manual
			header := &doc.GenManHeader{Section: "8", Source: "ebpf-server " + version, Manual: "ebpf-server"}
			return doc.GenManTree(root, header, args[0])
		})
	c.Hidden = true
	return c
}
