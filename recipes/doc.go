// Package recipes shows how a cache's Stats get into other systems of metrics than the one that package inspect serves
// by itself. It is a module of its own, so that the cache depends on none of them; take from it what you need.
package recipes
