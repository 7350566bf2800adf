package main

import (
	"github.com/spf13/cobra"
)

func newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long: `Completion prints a script that makes a shell complete commands, flags, and the
keys and buckets of the cache that the command line or the environment names.
It offers up to 500 names, within a second, and only names that need no quotes
in a shell.`,
		Example: `  source <(keepcache completion bash)
  keepcache completion zsh > "${fpath[1]}/_keepcache"
  keepcache completion fish > ~/.config/fish/completions/keepcache.fish`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      keyArgs("SHELL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usagef("no completion for %q; there is bash, zsh, fish and powershell", args[0])
		},
	}
}
