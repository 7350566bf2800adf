// Package recipes exports the Stats of a cache to metrics systems that package inspect does not serve. It is a separate
// module, so that the cache itself does not depend on them. Copy what you need.
package recipes
