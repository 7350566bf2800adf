//go:build race

package keepcache_test

func init() { raced = true }
