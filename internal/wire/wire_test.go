package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keepcache/keepcache"
	"github.com/keepcache/keepcache/internal/wire"
)

// TestName carries every byte through JSON, and shows what is text as text.
func TestName(t *testing.T) {
	for name, want := range map[string]string{
		"":               `""`,
		"user:123":       `"user:123"`,
		"a\x00\u2028é":   `"a\u0000\u2028é"`,
		"\xff":           `{"base64":"/w=="}`,
		"ok\xed\xa0\x80": `{"base64":"b2vtoIA="}`,
	} {
		text, err := json.Marshal(wire.Name(name))
		require.NoError(t, err)
		require.Equal(t, want, string(text))
		var back wire.Name
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, name, string(back))
	}
	var n wire.Name
	for _, bad := range []string{`{}`, `{"base64":"*"}`, `1`, `[]`, `{"base64":null}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &n), bad)
	}
}

// TestFailure finds the same cause, and the same words, on the other side.
func TestFailure(t *testing.T) {
	for _, cause := range []error{
		keepcache.ErrReadOnly, keepcache.ErrClosed, keepcache.ErrCorrupt, keepcache.ErrInvalidKey, keepcache.ErrInvalidName,
		keepcache.ErrInvalidTTL, keepcache.ErrInvalidTag, keepcache.ErrTooLarge, keepcache.ErrUnsupportedValue,
		keepcache.ErrNotFound, keepcache.ErrUnavailable, wire.ErrVersion, wire.ErrNoWrites, wire.ErrNoValues,
		wire.ErrForbidden, wire.ErrBusy,
		wire.ErrBadRequest, wire.ErrInternal,
	} {
		err := error(&keepcache.Error{Op: "set", Path: "/a.cache", Bucket: "b", Key: "\xff",
			Err: fmt.Errorf("%w: why", cause), Hint: "do this"})
		f, status := wire.FailureOf(err)
		require.GreaterOrEqual(t, status, 400)
		text, marshalErr := json.Marshal(f)
		require.NoError(t, marshalErr)
		var back wire.Failure
		require.NoError(t, json.Unmarshal(text, &back))
		require.ErrorIs(t, back.Err(), cause)
		require.Equal(t, err.Error(), back.Err().Error())
	}
	f, status := wire.FailureOf(errors.New("anything"))
	require.Equal(t, 500, status)
	require.ErrorIs(t, f.Err(), wire.ErrInternal)
	require.EqualError(t, f.Err(), "anything")
}

// TestStats carries every field: one that is added to keepcache.Stats and forgotten here fails it.
func TestStats(t *testing.T) {
	var s keepcache.Stats
	n := 0
	fill(t, reflect.ValueOf(&s).Elem(), &n)
	require.Greater(t, n, 50)
	text, err := json.Marshal(wire.StatsOf(s, time.Now()))
	require.NoError(t, err)
	var w wire.Stats
	require.NoError(t, json.Unmarshal(text, &w))
	require.Equal(t, s, w.Stats())
}

// fill sets every field to a value of its own.
func fill(t *testing.T, v reflect.Value, n *int) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.UnixMilli(int64(*n))))
		return
	case error:
		v.Set(reflect.ValueOf(errors.New(fmt.Sprint(*n))))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, name := range []string{"a", "\xff"} {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(t, e, n)
			v.SetMapIndex(reflect.ValueOf(name), e)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.String:
		v.SetString(fmt.Sprint(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Interface:
		v.Set(reflect.ValueOf(errors.New(fmt.Sprint(*n))))
	default:
		t.Fatalf("what is a %s?", v.Type())
	}
}

// TestEntry carries what is known of an entry.
func TestEntry(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	for _, e := range []keepcache.Entry{
		{Key: "k", WrittenAt: at, Size: 3, Revision: 1 << 60},
		{
			Key: "\xff", WrittenAt: at, ExpiresAt: at.Add(1), StaleUntil: at.Add(time.Hour), LoadedAt: at, ETag: "\xfe",
			Tags: []string{"a", "\xfd"},
		},
	} {
		e.ExpiresAt = e.ExpiresAt.Truncate(time.Millisecond)
		text, err := json.Marshal(wire.EntryOf("b", e))
		require.NoError(t, err)
		var w wire.Entry
		require.NoError(t, json.Unmarshal(text, &w))
		require.Equal(t, "b", string(w.Bucket))
		require.Equal(t, e, w.Entry())
	}
}

// TestTTL rounds up, and tells for ever from the default.
func TestTTL(t *testing.T) {
	require.Equal(t, int64(0), wire.TTL(0))
	require.Equal(t, int64(1), wire.TTL(1))
	require.Equal(t, int64(2000), wire.TTL(2*time.Second))
	require.Equal(t, int64(-1), wire.TTL(keepcache.NoExpiry))
}
