package preflight

// Held lets checks hold so many bytes of what waits, until the function that it returns is called.
func Held(n int64) (restore func()) {
	held, room := heldMost, leastRoom
	heldMost, leastRoom = n, n
	return func() { heldMost, leastRoom = held, room }
}
