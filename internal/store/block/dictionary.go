package block

import (
	"bytes"
	"cmp"
	"fmt"

	"github.com/parquet-go/parquet-go/format"

	"github.com/srodi/ebpf-server/internal/event"
)

// dictionary is that of a column, from when a page of data may need it.
type dictionary struct {
	entries int
	values  []byte // as PLAIN
	numbers []int64
	ends    []uint32 // of texts, in values
}

func (d *dictionary) load(p *page, codec format.CompressionCodec) error {
	values, err := p.values(codec, &d.values)
	if err != nil {
		return err
	}
	if !p.isCompressed(codec) { // then it is the file's, and may be used longer than that
		values = bytes.Clone(values)
	}
	d.values, d.entries = values, p.rows
	return nil
}

// size returns about how many bytes of memory the dictionary takes.
func (d *dictionary) size() int { return cap(d.values) + 8*cap(d.numbers) + 4*cap(d.ends) }

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
	texts := make([]string, 0, d.entries)
	return texts, d.eachText(kind, func(_ int, text string) { texts = append(texts, text) })
}

// used returns only those texts that codes refer to, and changes the codes to
// theirs.
func (d *dictionary) used(kind event.Kind, codes []uint32, s *scratch) (texts []string, err error) {
	if err := d.findTexts(); err != nil {
		return nil, err
	}
	s.known = grown(s.known, 1+d.entries)
	s.used = s.used[:0]
	for i, code := range codes {
		if code == 0 {
			continue
		}
		if s.known[code] == 0 {
			s.used = append(s.used, code)
			s.known[code] = uint32(len(s.used))
		}
		codes[i] = s.known[code]
	}
	texts = make([]string, len(s.used))
	for i, code := range s.used {
		s.known[code] = 0
		begin := uint32(0)
		if code > 1 {
			begin = d.ends[code-2]
		}
		text, failed := textOf(kind, d.values[begin+4:d.ends[code-1]])
		texts[i], err = text, cmp.Or(err, failed)
	}
	return texts, err
}

// findTexts finds where each text is, once.
func (d *dictionary) findTexts() error {
	if d.ends != nil {
		return nil
	}
	ends := make([]uint32, d.entries)
	end := uint32(0)
	err := d.eachPlain(func(k int, text []byte) error {
		end += 4 + uint32(len(text))
		ends[k] = end
		return nil
	})
	if err == nil {
		d.ends = ends
	}
	return err
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
