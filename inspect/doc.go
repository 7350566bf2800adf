// Package inspect serves a running cache for inspection: a page for people, metrics for Prometheus, and the protocol
// that the keepcache command speaks. It uses only the standard library. A program that does not import it contains none
// of it.
//
//	stop, err := inspect.Listen(db, nil) // on a socket beside the file, for the keepcache command
//	mux.Handle("/debug/cache/", inspect.Handler(db, nil))
//
// # Safety
//
// By default a handler only reads, and shows no values: Options.ShowValues and Options.AllowWrites are off. A write
// must be a POST from the page's own origin. The host of a request must be localhost or a loopback address, so that a
// foreign page cannot reach the handler through a DNS name of its own that resolves to this machine. Options.Hosts
// allows other hosts. Options.Authorize is for the program's own authentication: a handler that others can reach needs
// it.
//
// Inspection costs the cache little. Answers are bounded in length and time, and streams in number and rate. If a
// client reads a stream too slowly, the stream drops events and does not delay operations.
//
// docs/inspect.md describes the protocol.
package inspect
