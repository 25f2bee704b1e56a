package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"distmsg/internal/cli"
)

// newManCommand returns relay man, which packages use.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the man pages into a directory",
		Long:   "Write a man page for each command into a directory, which is created if there is none. SOURCE_DATE_EPOCH sets their date.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: cli.RunE(func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Title: "RELAY", Section: "1", Source: "distmsg", Manual: "distmsg"}, args[0])
		}),
	}
}
