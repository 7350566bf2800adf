package main

import (
	"context"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/keepcache/keepcache"
)

// Bounds of completion: a person waits for it, and the shell does nothing else meanwhile.
const (
	completeWait = time.Second
	completeMost = 500 // names; a shell asks before it shows a hundred
	groupsMost   = 100 // groups of keys: each costs a page of the list
)

// moreNames is offered if there are too many names. Only a part of them would mislead, because a shell completes their
// common prefix.
const moreNames = "there are too many names to show: type more of it"

// completeNames makes the shell complete keys and names of buckets, and offer files only where an argument is a file.
func completeNames(root *cobra.Command, f *flags) {
	register := func(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
		if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // unknown flag
		}
	}
	files := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	buckets := func(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
		return f.complete(cmd, begin, bucketNames)
	}
	keys := func(most int) cobra.CompletionFunc {
		return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
			if most > 0 && len(args) >= most {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return f.complete(cmd, begin, keyNames)
		}
	}
	register(root, "file", files)
	register(root, "addr", cobra.NoFileCompletions)
	register(root, "bucket", buckets)
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "get", "exists", "ttl", "touch", "stat", "delete":
			cmd.ValidArgsFunction = keys(0)
		case "set", "add", "incr", "keys":
			cmd.ValidArgsFunction = keys(1)
		case "import", "restore", "backup":
			cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return nil, cobra.ShellCompDirectiveDefault
			}
		default:
			if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil {
				cmd.ValidArgsFunction = cobra.NoFileCompletions
			}
		}
		for name, complete := range map[string]cobra.CompletionFunc{
			"ttl": cobra.NoFileCompletions, "tag": cobra.NoFileCompletions, "glob": cobra.NoFileCompletions,
			"limit": cobra.NoFileCompletions,
			"by":    cobra.NoFileCompletions, "timeout": cobra.NoFileCompletions, "interval": cobra.NoFileCompletions,
			"max-value-bytes": cobra.NoFileCompletions, "after": keys(0), "prefix": keys(0), "to": files,
			"kinds": cobra.FixedCompletions(kindNames(), cobra.ShellCompDirectiveNoFileComp),
		} {
			if cmd.Flags().Lookup(name) != nil {
				register(cmd, name, complete)
			}
		}
		if cmd.LocalNonPersistentFlags().Lookup("bucket") != nil { // repair has its own
			register(cmd, "bucket", buckets)
		}
	}
}

// complete returns the names that list finds within the time limit. On an error it offers nothing, because an error
// message would disturb the person who is typing.
func (f *flags) complete(
	cmd *cobra.Command, begin string, list func(c cache, bucket, begin string) (names, groups []string, more bool),
) ([]string, cobra.ShellCompDirective) {
	type found struct {
		names, groups []string
		more          bool
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	done := make(chan found, 1)
	quiet := &cobra.Command{}
	quiet.SetContext(ctx)
	quiet.SetErr(io.Discard)
	go func() { // opening a large file cannot be interrupted, and ends with the process
		var l found
		_ = f.open(quiet, reading, func(c cache, bucket string) error {
			l.names, l.groups, l.more = list(c, bucket, begin)
			return nil
		})
		done <- l
	}()
	directive := cobra.ShellCompDirectiveNoFileComp
	select {
	case l := <-done:
		if l.more {
			return cobra.AppendActiveHelp(nil, moreNames), directive
		}
		if len(l.groups) > 0 {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return append(l.names, l.groups...), directive
	case <-ctx.Done():
		return nil, directive
	}
}

func bucketNames(c cache, _, begin string) (names, groups []string, more bool) {
	all, err := c.buckets()
	if err != nil {
		return nil, nil, false
	}
	for _, name := range all {
		if !strings.HasPrefix(name, begin) || !typable(name) {
			continue
		}
		if len(names) == completeMost {
			return nil, nil, true
		}
		names = append(names, name)
	}
	return names, nil, false
}

// keyNames returns the keys with a prefix. If there are too many, it returns their beginnings up to the next separator,
// as a shell completes directories.
func keyNames(c cache, bucket, begin string) (names, groups []string, more bool) {
	looked := 0
	for e, err := range c.list(listing{
		ScanOptions: keepcache.ScanOptions{Prefix: begin, KeysOnly: true}, bucket: bucket, limit: completeMost,
	}) {
		if isDamagedEntry(e, err) {
			continue
		}
		if err != nil {
			return nil, nil, false
		}
		if looked++; looked > completeMost {
			return keyGroups(c, bucket, begin)
		}
		if typable(e.Key) {
			names = append(names, e.Key)
		}
	}
	return names, nil, false
}

// keyGroups steps from one group of keys to the next.
func keyGroups(c cache, bucket, begin string) (names, groups []string, more bool) {
	after := ""
	for range groupsMost {
		key, found := "", false
		for e, err := range c.list(listing{
			ScanOptions: keepcache.ScanOptions{Prefix: begin, After: after, KeysOnly: true}, bucket: bucket, limit: 1,
		}) {
			if err != nil && !isDamagedEntry(e, err) {
				return nil, nil, false
			}
			if err == nil {
				key, found = e.Key, true
				break
			}
		}
		if !found {
			return names, groups, false
		}
		after = key
		if end := strings.IndexAny(key[len(begin):], ":/.-_|@,"); end >= 0 {
			group := key[:len(begin)+end+1]
			after = group + "\xff" // after all keys of the group that are UTF-8
			if typable(group) && (len(groups) == 0 || groups[len(groups)-1] != group) {
				groups = append(groups, group)
			}
		} else if typable(key) {
			names = append(names, key)
		}
	}
	return nil, nil, true
}

// typable reports whether a name is safe in the command line of any shell without quotes. Other names are not offered:
// they come from a file, and what is quoted for one shell may be executed by another.
func typable(name string) bool {
	for i, r := range name {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), strings.ContainsRune("_:./", r):
		case i > 0 && strings.ContainsRune("-=,+@%", r): // may begin a flag, or something that a shell expands
		default:
			return false
		}
	}
	return name != ""
}
