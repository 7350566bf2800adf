package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver named sqlite
)

func init() {
	register(product{
		name: "sqlite", module: "modernc.org/sqlite",
		about:   "WAL, one table without row ids and an index on the deadline, prepared statements, one connection that writes, page cache of MemoryBytes for each",
		relaxed: &promise{"synchronous NORMAL", all, "all up to the last checkpoint"},
		durable: &promise{"synchronous FULL", all, all},
		open:    func() Peer { return &sqlitePeer{} },
	})
}

type sqlitePeer struct {
	write, read   *sql.DB
	set, get, del *sql.Stmt
}

// sqliteReaders are the connections for reading.
const sqliteReaders = 4

func (p *sqlitePeer) Open(dir string, s Settings) (err error) {
	synchronous := "NORMAL"
	if s.Durable {
		synchronous = "FULL"
	}
	q := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(" + synchronous + ")",
		fmt.Sprintf("cache_size(-%d)", max(s.MemoryBytes, 2<<20)>>10),
	}, "_txlock": {"immediate"}}
	name := "file:" + filepath.ToSlash(filepath.Join(dir, "bench.sqlite")) + "?" + q.Encode()
	if p.write, err = sql.Open("sqlite", name); err != nil {
		return err
	}
	p.write.SetMaxOpenConns(1)
	_, err = p.write.Exec(`
		CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, gone INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
		CREATE INDEX IF NOT EXISTS expiry ON entries (gone);`)
	if err != nil {
		return err
	}
	if p.read, err = sql.Open("sqlite", name); err != nil {
		return err
	}
	p.read.SetMaxOpenConns(sqliteReaders)
	p.read.SetMaxIdleConns(sqliteReaders)
	for _, st := range []struct {
		on   *sql.DB
		text string
		as   **sql.Stmt
	}{
		{p.write, `INSERT INTO entries (key, gone, value) VALUES (?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET gone = excluded.gone, value = excluded.value`, &p.set},
		{p.write, `DELETE FROM entries WHERE key = ?`, &p.del},
		{p.read, `SELECT value FROM entries WHERE key = ? AND gone > ?`, &p.get},
	} {
		if *st.as, err = st.on.Prepare(st.text); err != nil {
			return err
		}
	}
	return nil
}

func (p *sqlitePeer) Get(key string) (value []byte, found bool, err error) {
	err = p.get.QueryRow(key, time.Now().UnixMilli()).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return value, err == nil, err
}

func (p *sqlitePeer) Set(key string, value []byte, ttl time.Duration) error {
	_, err := p.set.Exec(key, time.Now().Add(ttl).UnixMilli(), value)
	return err
}

func (p *sqlitePeer) Delete(key string) error {
	_, err := p.del.Exec(key)
	return err
}

func (p *sqlitePeer) SetMany(b *Batch, ttl time.Duration) error {
	tx, err := p.write.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	set := tx.Stmt(p.set)
	gone := time.Now().Add(ttl).UnixMilli()
	for i, key := range b.Keys {
		if _, err := set.Exec(key, gone, b.Values[i]); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (p *sqlitePeer) Settle() error {
	_, err := p.write.Exec("PRAGMA wal_checkpoint(PASSIVE)")
	return err
}

func (p *sqlitePeer) Close() error { return errors.Join(p.read.Close(), p.write.Close()) }
