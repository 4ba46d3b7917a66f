package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// The pages that are found must be those that bbolt itself counts.
func TestReadAheadFindsThePages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	key := func(i int) []byte { return fmt.Appendf(nil, "key %06d", i) }
	const keys, buckets = 5000, 300
	err = db.Update(func(tx *bbolt.Tx) error {
		values, err := tx.CreateBucket([]byte("values"))
		for i := 0; i < keys && err == nil; i++ {
			err = values.Put(key(i), bytes.Repeat([]byte{byte(i)}, 400+i%7000))
		}
		if err != nil {
			return err
		}
		nested, err := tx.CreateBucket([]byte("nested"))
		for i := 0; i < buckets && err == nil; i++ {
			var b *bbolt.Bucket
			if b, err = nested.CreateBucket(key(i)); err == nil {
				err = b.Put([]byte("b"), make([]byte, 3*i*i))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	walk := func(from treePage) (pages []treePage, data [][]byte) {
		for pages = []treePage{from}; len(data) < len(pages); {
			page := make([]byte, db.Info().PageSize)
			if _, err := file.ReadAt(page, pages[len(data)].number*int64(len(page))); err != nil {
				t.Fatal(err)
			}
			pages = pages[len(data)].below(pages, page)
			data = append(data, page)
		}
		return pages, data
	}
	err = db.View(func(tx *bbolt.Tx) error {
		values, nested := tx.Bucket([]byte("values")), tx.Bucket([]byte("nested"))
		all, _ := walk(treePage{number: int64(values.Root())})
		if stats := values.Stats(); len(all) != stats.LeafPageN+stats.BranchPageN {
			t.Errorf("found %d pages, and bbolt has %d and %d", len(all), stats.LeafPageN, stats.BranchPageN)
		}
		some, data := walk(treePage{number: int64(values.Root()), from: key(1000), until: key(1010)})
		if len(some) > 20 {
			t.Errorf("found %d pages for 10 keys", len(some))
		}
		for i := 1000; i < 1010; i++ {
			if !slices.ContainsFunc(data, func(page []byte) bool { return bytes.Contains(page, key(i)) }) {
				t.Errorf("no page has %s", key(i))
			}
		}
		below, _ := walk(treePage{number: int64(nested.Root()), levels: 1, from: key(200), until: key(250)})
		below = slices.DeleteFunc(below, func(p treePage) bool { return p.levels > 0 })
		var want []int64
		for i := 200; i < 250; i++ {
			want = append(want, int64(nested.Bucket(key(i)).Root()))
		}
		if !slices.EqualFunc(below, want, func(p treePage, number int64) bool { return p.number == number }) {
			t.Errorf("found %v below, want %v", below, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadAheadOfDamagedPages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	page := make([]byte, 512)
	for range 20_000 {
		for i := range page {
			page[i] = byte(r.Uint32() >> r.IntN(9)) // small numbers among them
		}
		page[8], page[9] = byte(1+r.IntN(2)), 0
		treePage{levels: r.IntN(2), from: page[100:108], until: page[200:208]}.below(nil, page)
	}
}
