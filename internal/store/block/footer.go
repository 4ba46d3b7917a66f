package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

const magic = "PAR1"

// Keys of the file's metadata.
const (
	keyType    = "ebpf-server.type"
	keyVersion = "ebpf-server.version"
)

// footer is what a block needs of Parquet's FileMetaData. It refers to the
// bytes that it was read from.
type footer struct {
	typeName, version []byte
	rows              int64
	rowGroups         int
	schema            []element
	chunks            []columnChunk
}

// element is one column of the schema, or its root.
type element struct {
	name       []byte
	physical   format.Type
	repetition format.FieldRepetitionType
	children   int64
}

// columnChunk is where a column's pages are.
type columnChunk struct {
	codec            format.CompressionCodec
	size             int64 // of the pages, as they are in the file
	data, dictionary int64 // offset of the first data page, and of the dictionary page or 0
}

// readFooter finds and reads the footer of a file.
func readFooter(data []byte) (*footer, error) {
	const tail = 4 + len(magic)
	if len(data) < len(magic)+tail || string(data[:len(magic)]) != magic || string(data[len(data)-len(magic):]) != magic {
		return nil, errors.New("not a Parquet file, or not all of it")
	}
	end := len(data) - tail
	size := int64(binary.LittleEndian.Uint32(data[end:]))
	if size > int64(end-len(magic)) {
		return nil, fmt.Errorf("footer of %d bytes is longer than the file", size)
	}
	f := new(footer)
	r := compact{data: data[end-int(size) : end]}
	f.read(&r)
	if r.err != nil {
		return nil, fmt.Errorf("read footer: %w", r.err)
	}
	return f, nil
}

func (f *footer) read(r *compact) {
	for id, kind := range r.fields() {
		switch id {
		case 2:
			for range r.structs(kind) {
				f.schema = append(f.schema, readElement(r))
			}
		case 3:
			f.rows = r.int(kind)
		case 4:
			for range r.structs(kind) {
				f.rowGroups++
				f.readRowGroup(r)
			}
		case 5:
			for range r.structs(kind) {
				f.readKeyValue(r)
			}
		default:
			r.skip(kind)
		}
	}
}

func readElement(r *compact) (e element) {
	e.physical = -1
	for id, kind := range r.fields() {
		switch id {
		case 1:
			e.physical = format.Type(r.int(kind))
		case 3:
			e.repetition = format.FieldRepetitionType(r.int(kind))
		case 4:
			e.name = r.binary(kind)
		case 5:
			e.children = r.int(kind)
		default:
			r.skip(kind)
		}
	}
	return e
}

func (f *footer) readRowGroup(r *compact) {
	for id, kind := range r.fields() {
		if id != 1 {
			r.skip(kind)
			continue
		}
		for range r.structs(kind) {
			f.chunks = append(f.chunks, readColumnChunk(r))
		}
	}
}

func readColumnChunk(r *compact) (c columnChunk) {
	for id, kind := range r.fields() {
		if id == 3 && kind == thrift.STRUCT {
			c.readMetaData(r)
		} else {
			r.skip(kind)
		}
	}
	return c
}

func (c *columnChunk) readMetaData(r *compact) {
	for id, kind := range r.fields() {
		switch id {
		case 4:
			c.codec = format.CompressionCodec(r.int(kind))
		case 7:
			c.size = r.int(kind)
		case 9:
			c.data = r.int(kind)
		case 11:
			c.dictionary = r.int(kind)
		default:
			r.skip(kind)
		}
	}
}

func (f *footer) readKeyValue(r *compact) {
	var key, value []byte
	for id, kind := range r.fields() {
		switch id {
		case 1:
			key = r.binary(kind)
		case 2:
			value = r.binary(kind)
		default:
			r.skip(kind)
		}
	}
	switch string(key) {
	case keyType:
		f.typeName = value
	case keyVersion:
		f.version = value
	}
}

// check reports why a file cannot be a block of a type.
func (f *footer) check(typeName string) error {
	switch version, err := strconv.Atoi(string(f.version)); {
	case f.version == nil || f.typeName == nil:
		return errors.New("a Parquet file that ebpf-server did not write; import it instead")
	case err != nil:
		return fmt.Errorf("%s is %q, not a number", keyVersion, f.version)
	case version > Version:
		return fmt.Errorf("block has version %d, this program reads up to %d; use a newer ebpf-server", version, Version)
	case version < 1:
		return fmt.Errorf("%s is %d", keyVersion, version)
	case string(f.typeName) != typeName:
		return fmt.Errorf("block has events of type %q, not %q", f.typeName, typeName)
	case f.rowGroups != 1:
		return fmt.Errorf("block has %d row groups instead of one", f.rowGroups)
	case f.rows < 1 || f.rows > MaxRows:
		return fmt.Errorf("block has %d events; there must be 1 to %d", f.rows, MaxRows)
	case len(f.schema) == 0 || f.schema[0].children != int64(len(f.chunks)) || len(f.schema) != 1+len(f.chunks):
		return errors.New("schema is not a flat list of the columns")
	}
	return nil
}

// bounds returns where a column's pages begin and end in a file of so many bytes.
func (c *columnChunk) bounds(size int) (begin, end int, err error) {
	first := c.data
	if c.dictionary > 0 {
		first = min(first, c.dictionary)
	}
	if first < 0 || first > int64(size) || c.size <= 0 || c.size > int64(size)-first {
		return 0, 0, fmt.Errorf("pages of %d bytes at %d are not within the file's %d bytes", c.size, first, size)
	}
	return int(first), int(first + c.size), nil
}
