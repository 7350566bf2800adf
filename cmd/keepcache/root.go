package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

// Groups of the commands in the help text.
const (
	groupEntries = "entries"
	groupCache   = "cache"
	groupOther   = "other"
)

func newRootCommand() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:   "keepcache",
		Short: "Read and change cache files",
		Long: `keepcache reads and changes cache files.

A cache is one file. Name it with --file, or in the environment variable
KEEPCACHE_FILE. Values are JSON. Entries can have a lifetime, and are absent
after it.

If a program has the cache open and serves a socket beside the file, keepcache
asks the program. Otherwise it reads the file without the lock and cannot
change it. --addr names a program instead of a file.

Data goes to standard output, messages go to standard error.

Exit codes:
` + exitCodes,
		Example: `  keepcache demo
  export KEEPCACHE_FILE=app.cache
  keepcache set user:123 '{"username":"ada","roles":["admin"]}' --ttl 5m
  keepcache get user:123
  keepcache keys --long`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE:          refuseFlags,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	p := root.PersistentFlags()
	p.StringVarP(&f.file, "file", "f", "", "cache file (default: $KEEPCACHE_FILE)")
	p.StringVar(&f.addr, "addr", "",
		"running program instead of a file: unix:PATH or\nhttp://HOST/PATH (default: $KEEPCACHE_ADDR)")
	p.StringVarP(&f.bucket, "bucket", "b", keepcache.DefaultBucket, "bucket")
	p.BoolVar(&f.quoted, "quoted", false, "read names that begin with \" as quoted names, in\nthe form that keys prints")

	root.AddGroup(
		&cobra.Group{ID: groupEntries, Title: "Entries:"},
		&cobra.Group{ID: groupCache, Title: "The whole cache:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupEntries,
		newGetCommand(f), newSetCommand(f), newAddCommand(f), newDeleteCommand(f), newExistsCommand(f),
		newTTLCommand(f), newTouchCommand(f), newIncrCommand(f), newKeysCommand(f), newStatCommand(f))
	add(groupCache,
		newBucketsCommand(f), newStatsCommand(f), newTopCommand(f), newWatchCommand(f),
		newInvalidateCommand(f), newClearCommand(f), newSweepCommand(f), newCompactCommand(f),
		newVerifyCommand(f), newRepairCommand(f), newBackupCommand(f), newRestoreCommand(f),
		newExportCommand(f), newImportCommand(f))
	add(groupOther, newDemoCommand(f), newVersionCommand(), newCompletionCommand())
	add("", newCheckEntriesCommand(), newCheckPagesCommand(), newDemoWriterCommand())
	root.SetHelpCommandGroupID(groupOther)
	root.SetHelpCommand(newHelpCommand())
	root.InitDefaultHelpCmd() // adds it
	root.Version = buildVersion().String()
	root.SetVersionTemplate("{{.Version}}\n")

	root.SetUsageTemplate(strings.NewReplacer(
		// Without a command, the program only prints this help.
		"{{if .Runnable}}", "{{if and .Runnable .HasParent}}",
		".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", helpWidth),
	).Replace(root.UsageTemplate()))
	completeNames(root, f)
	asUsage(root)
	return root
}

// refuseFlags refuses an empty --file or --addr, as from an unset variable in a script: the environment could name
// another cache than the intended one. It also refuses --bucket for commands that cover all buckets, because they would
// do more than intended.
func refuseFlags(cmd *cobra.Command, _ []string) error {
	for _, name := range []string{"file", "addr"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usagef("--%s is empty", name)
		}
	}
	if instead, ok := unbucketed[cmd.Name()]; ok && cmd.Flags().Changed("bucket") {
		return usagef("--bucket: %s %s", cmd.Name(), instead)
	}
	return nil
}

// unbucketed are the commands that cover all buckets, or none, with the error for a --bucket.
var unbucketed = map[string]string{
	"backup":     "copies the whole cache; export --bucket writes the entries of one bucket",
	"buckets":    "lists all buckets; keys --bucket lists the keys of one",
	"compact":    "compacts the whole file",
	"completion": "does not use a bucket",
	"demo":       "creates its own cache",
	"invalidate": "makes entries absent in all buckets; clear --bucket empties one",
	"restore":    "restores the whole cache; import --bucket fills one bucket",
	"stats":      "covers the whole cache; buckets --long shows the size of each bucket",
	"sweep":      "removes expired entries in all buckets",
	"top":        "covers the whole cache; its list of buckets shows the size of each",
	"verify":     "checks the whole file",
	"version":    "does not use a bucket",
}

// helpWidth is the maximum length of a line of help, in columns: the usual width of a terminal.
const helpWidth = 80

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Describe a command",
		Long:    `Help describes a command, with its flags and examples.`,
		Example: `  keepcache help import`,
		GroupID: groupOther,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return &usageError{unknownCommand(cmd.Root(), args[0])}
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	}
}

// elsewhere has the names that other programs use for these commands.
var elsewhere = map[string][]string{
	"delete": {"del", "rm", "remove", "unset"},
	"export": {"dump"},
	"get":    {"cat", "read"},
	"keys":   {"ls", "list", "scan"},
	"set":    {"put", "store", "write"},
	"stats":  {"info"},
	"touch":  {"expire"},
	"watch":  {"events", "monitor", "tail"},
}

func unknownCommand(root *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q", name)
	for _, c := range root.Commands() {
		if slices.ContainsFunc(elsewhere[c.Name()], func(n string) bool { return strings.EqualFold(n, name) }) {
			return fmt.Errorf("%w, did you mean %q?", err, c.Name())
		}
	}
	if near := root.SuggestionsFor(name); len(near) > 0 {
		err = fmt.Errorf("%w, did you mean %q?", err, near[0])
	}
	return err
}

// asUsage turns every error of cobra about the command line into a usageError, for cmd and its subcommands.
func asUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{flagError(cmd, err)} })
	check := cmd.Args
	if check == nil {
		check = keyArgs()
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
	cmd.DisableFlagsInUseLine = true
	for _, c := range cmd.Commands() {
		asUsage(c)
	}
}

// flagError rephrases an error of a flag for people. For an unknown flag, it adds what to do if a name, or a value such
// as -5, was intended.
func flagError(cmd *cobra.Command, err error) error {
	var number *strconv.NumError
	if errors.As(err, &number) {
		why := "it is not a whole number"
		if errors.Is(number, strconv.ErrRange) {
			why = "it is out of range"
		}
		return errors.New(strings.Replace(err.Error(), number.Error(), why, 1))
	}
	args, _, _ := strings.Cut(strings.TrimPrefix(cmd.Use, cmd.Name()), " --")
	if args == "" || !strings.HasPrefix(err.Error(), "unknown shorthand flag") {
		return err
	}
	if cmd.Flags().Lookup("by") != nil {
		err = fmt.Errorf("%w\nUse --by for the number to add, such as --by -5", err)
	}
	return fmt.Errorf("%w\nPut arguments that begin with - after --: %s [flags] --%s", err, cmd.CommandPath(), args)
}

// someArgs requires at least one argument.
func someArgs(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s is missing", name)
		}
		return nil
	}
}

// oneArg accepts at most one argument.
func oneArg(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("unexpected argument %q; quote arguments that contain spaces", args[1])
	}
	return nil
}

// keyArgs requires exactly the named arguments.
func keyArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing", names[len(args)])
		case len(args) > len(names):
			return unexpected(cmd, args[len(names)])
		}
		return nil
	}
}

// unexpected is the error of an extra argument. If it looks like the value of a flag, the error names the flag.
func unexpected(cmd *cobra.Command, arg string) error {
	hint := "quote arguments that contain spaces"
	if _, err := strconv.ParseInt(arg, 10, 64); err == nil && cmd.Flags().Lookup("by") != nil {
		hint = "--by " + arg + " adds it"
	} else if _, err := parseLifetime(arg); err == nil && cmd.Flags().Lookup("ttl") != nil {
		hint = "--ttl " + arg + " sets a lifetime"
	}
	return fmt.Errorf("unexpected argument %q; %s", arg, hint)
}

// exclusive refuses two flags that cannot be used together.
func exclusive(cmd *cobra.Command, a, b string) error {
	if cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return usagef("--%s and --%s cannot be used together", a, b)
	}
	return nil
}

var errInterrupted = errors.New("interrupted")
