// Command keepcache reads and changes cache files. Run `keepcache help` for its commands, and `keepcache demo` to see a
// cache survive kill -9.
package main

import (
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs one command line and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{w: stdout}
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		err = out.err // such as a full disk, if the output is redirected
	}
	complain(cmd, stderr, err)
	return exitCode(err)
}
