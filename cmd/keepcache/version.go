package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Version prints the version of this program, the revision and time of the source
that it was built from, the version of Go, and the system. --version prints the
same.`,
		Example: `  keepcache version`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := buildVersion()
			if asJSON {
				var o object
				o.text("go", runtime.Version())
				o.text("platform", runtime.GOOS+"/"+runtime.GOARCH)
				o.text("revision", v.revision)
				o.text("time", v.time)
				o.text("version", v.version)
				cmd.OutOrStdout().Write(o.line())
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout(), v)
			return nil
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

type version struct{ version, revision, time string }

// String returns the version as a line.
func (v version) String() string {
	built := ""
	if v.revision != "" {
		built = fmt.Sprintf(" (%s, %s)", v.revision, v.time)
	}
	return fmt.Sprintf("keepcache %s%s %s %s/%s", v.version, built, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// buildVersion returns the version that the go command has put into the program.
func buildVersion() version {
	v := version{version: "(unknown)"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.version = info.Main.Version
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.revision = s.Value[:min(12, len(s.Value))]
		case "vcs.time":
			v.time = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified && v.revision != "" {
		v.revision += "+changes"
	}
	return v
}
