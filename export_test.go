package keepcache

// Without switches off what a harness has to show that it would miss.
func Without(preflight, checksum bool) {
	without.preflight, without.checksum = preflight, checksum
}

// ShallowBytes sets how much of a file that was closed in order is proved.
func ShallowBytes(n int) { shallowBytes = n }
