package block

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// maxPage is the largest page that is written or read, decompressed. It bounds
// what a damaged block makes a reader allocate.
const maxPage = 32 << 20

// page is one page of a column, as it is in the file.
type page struct {
	kind     format.PageType
	encoding format.Encoding
	rows     int    // or the entries of a dictionary
	nulls    int    // rows without a value
	levels   []byte // which rows have a value, if the column is optional
	body     []byte // the values, in most cases compressed
	size     int    // of body decompressed

	compressed  bool
	at, to, end int    // where levels begin in the column's pages, where body does, and where that ends
	kept        []byte // body decompressed, if that is kept
}

// locate finds levels and body in the column's pages.
func (p *page) locate(pages []byte) { p.levels, p.body = pages[p.at:p.to], pages[p.to:p.end] }

// nextPage takes a page off the front of a column's pages.
func nextPage(data []byte) (p page, rest []byte, err error) {
	r := compact{data: data}
	var size, packed, levels int64
	p.compressed = true
	for id, kind := range r.fields() {
		switch {
		case id == 1:
			p.kind = format.PageType(r.int(kind))
		case id == 2:
			size = r.int(kind)
		case id == 3:
			packed = r.int(kind)
		case id == 7 && kind == thrift.STRUCT:
			p.readDictionaryHeader(&r)
		case id == 8 && kind == thrift.STRUCT:
			levels = p.readDataHeader(&r)
		default:
			r.skip(kind)
		}
	}
	if r.err != nil {
		return p, nil, fmt.Errorf("read page header: %w", r.err)
	}
	if err := p.check(size, packed, levels, int64(len(r.data))); err != nil {
		return p, nil, err
	}
	p.levels, p.body, p.size = r.data[:levels], r.data[levels:packed], int(size-levels)
	return p, r.data[packed:], nil
}

// check compares what a header says with itself and with the bytes that are left.
func (p *page) check(size, packed, levels, left int64) error {
	if packed < 0 || packed > left || levels < 0 || levels > packed || size < levels || size > maxPage {
		return fmt.Errorf("page header makes no sense: %d bytes, %d decompressed, %d of levels", packed, size, levels)
	}
	if p.rows < 0 || p.rows > MaxRows || p.nulls < 0 || p.nulls > p.rows {
		return fmt.Errorf("page header makes no sense: %d rows, %d of them empty", p.rows, p.nulls)
	}
	return nil
}

func (p *page) readDictionaryHeader(r *compact) {
	for id, kind := range r.fields() {
		switch id {
		case 1:
			p.rows = int(r.int(kind))
		case 2:
			p.encoding = format.Encoding(r.int(kind))
		default:
			r.skip(kind)
		}
	}
}

func (p *page) readDataHeader(r *compact) (levels int64) {
	for id, kind := range r.fields() {
		switch id {
		case 1:
			p.rows = int(r.int(kind))
		case 2:
			p.nulls = int(r.int(kind))
		case 4:
			p.encoding = format.Encoding(r.int(kind))
		case 5:
			levels = r.int(kind)
		case 6:
			if r.int(kind) != 0 {
				r.fail(errors.New("column is repeated"))
			}
		case 7:
			p.compressed = kind == thrift.TRUE
			r.skip(kind)
		default:
			r.skip(kind)
		}
	}
	return levels
}

// decompressor is safe for concurrent use, and keeps no state but memory.
var decompressor = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxPage), zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true))
})

func (p *page) isCompressed(codec format.CompressionCodec) bool {
	return codec != format.Uncompressed && p.compressed && p.size > 0
}

// values returns the body of a page decompressed: in buf, which grows as
// needed, or where it is in the file.
func (p *page) values(codec format.CompressionCodec, buf *[]byte) ([]byte, error) {
	if !p.isCompressed(codec) {
		if len(p.body) != p.size {
			return nil, fmt.Errorf("page has %d bytes, not %d", len(p.body), p.size)
		}
		return p.body, nil
	}
	if codec != format.Zstd {
		return nil, fmt.Errorf("page is compressed by %v; this program reads only ZSTD", codec)
	}
	d, err := decompressor()
	if err != nil {
		return nil, fmt.Errorf("prepare decompression: %w", err)
	}
	*buf = sized(*buf, p.size)
	out, err := d.DecodeAll(p.body, (*buf)[:0:p.size])
	if err != nil {
		return nil, fmt.Errorf("decompress page: %w", err)
	}
	if len(out) != p.size {
		return nil, errors.New("decompress page: it is shorter than its header says")
	}
	return out, nil
}
