package main

import (
	"time"

	"github.com/maypok86/otter/v2"
)

func init() {
	register(product{
		name: "otter", module: "github.com/maypok86/otter/v2", memory: true, expires: true,
		about:   "a memory cache, for the limit: a copy of the value goes in and another comes out; room for all entries",
		relaxed: &promise{"", nothing, nothing},
		open:    func() Peer { return &otterPeer{} },
	})
}

type otterPeer struct {
	cache *otter.Cache[string, otterValue]
}

type otterValue struct {
	data []byte
	ttl  time.Duration
}

func (p *otterPeer) Open(_ string, s Settings) (err error) {
	p.cache, err = otter.New(&otter.Options[string, otterValue]{
		MaximumSize: 4*s.Entries + 1000,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, otterValue]) time.Duration {
			return e.Value.ttl
		}),
	})
	return err
}

func (p *otterPeer) Get(key string) ([]byte, bool, error) {
	v, found := p.cache.GetIfPresent(key)
	if !found {
		return nil, false, nil
	}
	return append(make([]byte, 0, len(v.data)), v.data...), true, nil
}

func (p *otterPeer) Set(key string, value []byte, ttl time.Duration) error {
	p.cache.Set(key, otterValue{append(make([]byte, 0, len(value)), value...), ttl})
	return nil
}

func (p *otterPeer) Delete(key string) error {
	p.cache.Invalidate(key)
	return nil
}

func (p *otterPeer) SetMany(b *Batch, ttl time.Duration) error {
	for i, key := range b.Keys {
		_ = p.Set(key, b.Values[i], ttl)
	}
	return nil
}

func (p *otterPeer) Settle() error { p.cache.CleanUp(); return nil }
func (p *otterPeer) Close() error  { p.cache.StopAllGoroutines(); return nil }
