// Package inspect serves a running cache to those who want to look inside: a page for people, metrics for Prometheus,
// and the protocol that the keepcache command speaks. It uses the standard library alone, and a program that does
// not import it has no part of it.
//
//	stop, err := inspect.Listen(db, nil) // on a socket beside the file, for the keepcache command
//	mux.Handle("/debug/cache/", inspect.Handler(db, nil))
//
// # Safety
//
// By default a handler only reads, and shows no values: Options.ShowValues and Options.AllowWrites are off. A write is
// a POST from the page's own origin. Requests that name the server by anything but a loopback name are refused, so that
// no foreign page gets at it by a name that leads to this machine; Options.Hosts allows others. Options.Authorize is
// for the program's own authentication: a handler that is mounted where others can reach it needs one.
//
// Looking costs the cache little: answers are bounded in length and time, streams in number and rate, and a stream that
// is read too slowly loses events instead of holding up an operation.
//
// docs/inspect.md describes the protocol.
package inspect
