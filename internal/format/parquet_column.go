package format

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// fileColumn reads a column of a row group: some rows, then those that come next.
type fileColumn struct {
	name  string
	kind  parquet.Kind
	level byte  // of a value that is there; 0: all are
	unit  int64 // nanoseconds, of a column of timestamps
	pages parquet.Pages
	rest  parquet.Page // what is left of a page, or nil

	// Of the rows at hand. A column has numbers or texts.
	present []bool
	ints    []int64
	codes   []uint32 // 0 where absent, else 1 + position in texts
	texts   []string
	parsed  []parsed // as texts, or less: what some of them mean

	dictionary parquet.Dictionary
	numbers    []int64 // of it
	base       int     // where in texts it begins
	entries    int     // that it has there
}

// parsed is what an address means.
type parsed struct {
	raw  string
	done bool
	ok   bool
}

var errLevels = errors.New("file is damaged: a page has another number of values than its header says")

func newFileColumn(leaf parquet.LeafColumn, chunk parquet.ColumnChunk) (*fileColumn, error) {
	c := &fileColumn{name: strings.Join(leaf.Path, "."), kind: leaf.Node.Type().Kind(), level: byte(leaf.MaxDefinitionLevel), unit: 1}
	if leaf.MaxRepetitionLevel > 0 {
		return nil, fmt.Errorf("column %s is a list, which no field of an event is", c.name)
	}
	if logical := leaf.Node.Type().LogicalType(); logical != nil {
		if t, ok := logical.Value.(*format.TimestampType); ok {
			c.unit = nanoseconds(t.Unit.Value)
		}
	}
	c.pages = chunk.Pages()
	return c, nil
}

func nanoseconds(unit format.TimeUnitValue) int64 {
	switch unit.(type) {
	case *format.MilliSeconds:
		return int64(time.Millisecond)
	case *format.MicroSeconds:
		return int64(time.Microsecond)
	}
	return 1
}

func (c *fileColumn) close() {
	parquet.Release(c.rest)
	_ = c.pages.Close() // it was only read
}

func (c *fileColumn) hasNumbers() bool { return c.kind == parquet.Int32 || c.kind == parquet.Int64 }

// time returns the time that a number stands for, and whether it can be held.
func (c *fileColumn) time(n int64) (unixNano int64, ok bool) {
	return n * c.unit, n >= math.MinInt64/c.unit && n <= math.MaxInt64/c.unit
}

// value returns the value of a row as Reader.record takes it.
func (c *fileColumn) value(row int) any {
	switch {
	case !c.present[row]:
		return nil
	case !c.hasNumbers():
		return c.texts[c.codes[row]-1]
	case c.name == "time" && c.unit > 1:
		seconds := int64(time.Second) / c.unit
		return time.Unix(c.ints[row]/seconds, c.ints[row]%seconds*c.unit)
	}
	return c.ints[row]
}

// read reads the next n rows.
func (c *fileColumn) read(n int) error {
	c.present, c.ints, c.codes = c.present[:0], c.ints[:0], c.codes[:0]
	if c.base > 0 {
		copy(c.texts, c.texts[c.base:c.base+c.entries])
		c.parsed, c.base = c.parsed[:0], 0
	}
	c.texts, c.parsed = c.texts[:c.entries], c.parsed[:min(len(c.parsed), c.entries)]
	for len(c.present) < n {
		page, err := c.page(n - len(c.present))
		if err == nil {
			err = c.add(page)
			parquet.Release(page)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// page returns the next page, or as much of it as has n rows.
func (c *fileColumn) page(n int) (page parquet.Page, err error) {
	if page, c.rest = c.rest, nil; page == nil {
		if page, err = c.pages.ReadPage(); err != nil {
			return nil, err
		}
	}
	rows := page.NumRows()
	if rows <= int64(n) {
		return page, nil
	}
	defer parquet.Release(page)
	c.rest = page.Slice(int64(n), rows)
	return page.Slice(0, int64(n)), nil
}

func (c *fileColumn) add(page parquet.Page) error {
	first, values := len(c.present), 0
	if c.level == 0 {
		values = int(page.NumRows())
		for range values {
			c.present = append(c.present, true)
		}
	}
	for _, level := range page.DefinitionLevels() {
		there := level == c.level
		c.present = append(c.present, there)
		if there {
			values++
		}
	}
	present := c.present[first:]
	if int64(len(present)) != page.NumRows() {
		return errLevels
	}
	if values == 0 {
		c.addAbsent(len(present))
		return nil
	}
	if c.hasNumbers() {
		ints, err := c.pageNumbers(page)
		c.ints = spread(c.ints, ints, present)
		return checkValues(len(ints), values, err)
	}
	codes, err := c.pageCodes(page)
	c.codes = spread(c.codes, codes, present)
	return checkValues(len(codes), values, err)
}

func (c *fileColumn) addAbsent(rows int) {
	if c.hasNumbers() {
		c.ints = append(c.ints, make([]int64, rows)...)
	} else {
		c.codes = append(c.codes, make([]uint32, rows)...)
	}
}

func checkValues(found, want int, err error) error {
	if err == nil && found != want {
		err = errLevels
	}
	return err
}

// spread appends the values to dst, each to a row that has one, as long as
// there are any, and zero to the others.
func spread[T any](dst, values []T, present []bool) []T {
	var zero T
	for _, there := range present {
		if there && len(values) > 0 {
			dst = append(dst, values[0])
			values = values[1:]
		} else {
			dst = append(dst, zero)
		}
	}
	return dst
}

func (c *fileColumn) pageNumbers(page parquet.Page) ([]int64, error) {
	data := page.Data()
	if page.Dictionary() == nil {
		return numbersOf(data), nil
	}
	if page.Dictionary() != c.dictionary {
		values := page.Dictionary().Page().Data()
		c.dictionary, c.numbers = page.Dictionary(), numbersOf(values)
	}
	indexes := data.Int32()
	ints := make([]int64, len(indexes))
	for i, k := range indexes {
		if k < 0 || int(k) >= len(c.numbers) {
			return nil, errIndex(k, len(c.numbers))
		}
		ints[i] = c.numbers[k]
	}
	return ints, nil
}

func errIndex(k int32, entries int) error {
	return fmt.Errorf("file is damaged: index %d is outside a dictionary of %d entries", k, entries)
}

func numbersOf(values encoding.Values) []int64 {
	if values.Kind() == encoding.Int64 {
		return values.Int64()
	}
	narrow := values.Int32()
	ints := make([]int64, len(narrow))
	for i, n := range narrow {
		ints[i] = int64(n)
	}
	return ints
}

// pageCodes adds the texts of a page, or of its dictionary when that is new.
func (c *fileColumn) pageCodes(page parquet.Page) ([]uint32, error) {
	if page.Dictionary() == nil {
		begin := len(c.texts)
		err := c.addTexts(page)
		codes := make([]uint32, len(c.texts)-begin)
		for i := range codes {
			codes[i] = uint32(begin+i) + 1
		}
		return codes, err
	}
	entries := page.Dictionary().Len()
	if page.Dictionary() != c.dictionary {
		c.dictionary, c.base = page.Dictionary(), len(c.texts)
		if err := c.addTexts(c.dictionary.Page()); err != nil {
			return nil, err
		}
		if c.entries = len(c.texts) - c.base; c.entries != entries {
			return nil, errLevels
		}
	}
	data := page.Data()
	indexes := data.Int32()
	codes := make([]uint32, len(indexes))
	for i, k := range indexes {
		if k < 0 || int(k) >= entries {
			return nil, errIndex(k, entries)
		}
		codes[i] = uint32(c.base) + uint32(k) + 1
	}
	return codes, nil
}

// addTexts adds the values of a page that are there.
func (c *fileColumn) addTexts(page parquet.Page) error {
	data := page.Data()
	switch c.kind {
	case parquet.ByteArray:
		bytes, ends := data.ByteArray()
		if len(ends) < 2 {
			return nil
		}
		begin := ends[0]
		all := string(bytes[begin:ends[len(ends)-1]]) // one for all of them
		for i := range len(ends) - 1 {
			c.texts = append(c.texts, all[ends[i]-begin:ends[i+1]-begin])
		}
		return nil
	case parquet.FixedLenByteArray:
		bytes, size := data.FixedLenByteArray()
		for all := string(bytes); size > 0 && len(all) >= size; all = all[size:] {
			c.texts = append(c.texts, all[:size])
		}
		return nil
	}
	values := page.Values() // a number with a fraction, or true and false
	some := make([]parquet.Value, 64)
	for {
		n, err := values.ReadValues(some)
		for _, v := range some[:n] {
			if !v.IsNull() {
				c.texts = append(c.texts, v.String())
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
