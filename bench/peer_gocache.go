package main

import (
	"time"

	gocache "github.com/patrickmn/go-cache"
)

func init() {
	register(product{
		name: "go-cache", module: "github.com/patrickmn/go-cache", memory: true, expires: true,
		about:   "a memory cache, for the limit: a copy of the value goes in and another comes out; cleanup every second",
		relaxed: &promise{"", nothing, nothing},
		open:    func() Peer { return &goCachePeer{} },
	})
}

type goCachePeer struct{ cache *gocache.Cache }

func (p *goCachePeer) Open(string, Settings) error {
	p.cache = gocache.New(gocache.NoExpiration, time.Second)
	return nil
}

func (p *goCachePeer) Get(key string) ([]byte, bool, error) {
	v, found := p.cache.Get(key)
	if !found {
		return nil, false, nil
	}
	data := v.([]byte)
	return append(make([]byte, 0, len(data)), data...), true, nil
}

func (p *goCachePeer) Set(key string, value []byte, ttl time.Duration) error {
	p.cache.Set(key, append(make([]byte, 0, len(value)), value...), ttl)
	return nil
}

func (p *goCachePeer) Delete(key string) error {
	p.cache.Delete(key)
	return nil
}

func (p *goCachePeer) SetMany(b *Batch, ttl time.Duration) error {
	for i, key := range b.Keys {
		_ = p.Set(key, b.Values[i], ttl)
	}
	return nil
}

func (p *goCachePeer) Settle() error { return nil }
func (p *goCachePeer) Close() error  { p.cache.Flush(); return nil }
