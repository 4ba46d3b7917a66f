package block

import (
	"fmt"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// dictionary is that of a column, from when a page of data may need it.
type dictionary struct {
	entries int
	values  []byte // as PLAIN
	numbers []int64
}

// load is done once, however often the column is read.
func (d *dictionary) load(p *page, codec format.CompressionCodec) error {
	if d.entries > 0 {
		return nil
	}
	values, err := p.values(codec, &d.values)
	if err == nil {
		d.values, d.entries = values, p.rows
	}
	return err
}

// numbersOf looks up numbers by their indexes.
func (d *dictionary) numbersOf(dst []int64, indexes []uint32) error {
	if err := d.loadNumbers(); err != nil {
		return err
	}
	for i, k := range indexes {
		if int(k) >= len(d.numbers) {
			return errIndex(k, d.entries)
		}
		dst[i] = d.numbers[k]
	}
	return nil
}

func (d *dictionary) loadNumbers() error {
	if d.numbers != nil {
		return nil
	}
	numbers := make([]int64, d.entries)
	if err := decodeNumbers(numbers, d.values); err != nil {
		return fmt.Errorf("read dictionary: %w", err)
	}
	d.numbers = numbers
	return nil
}

// codesOf turns indexes into codes.
func (d *dictionary) codesOf(indexes []uint32) error {
	for i, k := range indexes {
		if int(k) >= d.entries {
			return errIndex(k, d.entries)
		}
		indexes[i] = k + 1
	}
	return nil
}

func errIndex(k uint32, entries int) error {
	return fmt.Errorf("index %d is outside a dictionary of %d entries", k, entries)
}

// all returns the texts as a vector holds them.
func (d *dictionary) all(kind event.Kind) ([]string, error) {
	return d.texts(kind, d.entries, func(k int) bool { return true })
}

// used returns only those texts that codes refer to, and changes the codes to
// theirs.
func (d *dictionary) used(kind event.Kind, codes []uint32) ([]string, error) {
	known := make([]uint32, 1+d.entries)
	n := uint32(0)
	for _, code := range codes {
		if code != 0 {
			known[code] = 1
		}
	}
	for code, used := range known {
		n += used
		known[code] = n * used
	}
	for i, code := range codes {
		codes[i] = known[code]
	}
	return d.texts(kind, int(n), func(k int) bool { return known[k+1] != 0 })
}

// texts returns the n texts that are wanted.
func (d *dictionary) texts(kind event.Kind, n int, wanted func(k int) bool) ([]string, error) {
	texts := make([]string, 0, n)
	rest := d.values
	for k := 0; len(texts) < n; k++ {
		text, after, err := nextText(rest)
		if err != nil {
			return nil, fmt.Errorf("read dictionary: %w", err)
		}
		rest = after
		if !wanted(k) {
			continue
		}
		value, err := textOf(kind, text)
		if err != nil {
			return nil, err
		}
		texts = append(texts, value)
	}
	return texts, nil
}

// eachText calls do with each text of a column that has texts, as a vector
// holds them.
func (d *dictionary) eachText(kind event.Kind, do func(k int, text string)) error {
	return d.eachPlain(func(k int, text []byte) error {
		value, err := textOf(kind, text)
		if err == nil {
			do(k, value)
		}
		return err
	})
}

// eachPlain calls do with each text as it is in the file.
func (d *dictionary) eachPlain(do func(k int, text []byte) error) error {
	rest := d.values
	for k := range d.entries {
		text, after, err := nextText(rest)
		if err != nil {
			return fmt.Errorf("read dictionary: %w", err)
		}
		rest = after
		if err := do(k, text); err != nil {
			return err
		}
	}
	return nil
}

func textOf(kind event.Kind, text []byte) (string, error) {
	if kind != event.KindIP {
		return string(text), nil
	}
	value, err := parseIP(text)
	if err != nil {
		return "", fmt.Errorf("read dictionary: %w", err)
	}
	return value, nil
}
