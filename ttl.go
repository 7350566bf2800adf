package keepcache

import "time"

// lifetime resolves the ttl argument of a call: 0 is the default of the bucket.
func lifetime(ttl, byDefault time.Duration) (time.Duration, error) {
	switch {
	case ttl < 0:
		return 0, ErrInvalidTTL
	case ttl == 0:
		return byDefault, nil
	}
	return ttl, nil
}
