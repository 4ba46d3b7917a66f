package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/parquet-go/parquet-go/encoding/thrift"
)

// compact reads Thrift's compact protocol, in which a Parquet file has its
// footer and page headers. It allocates nothing, whatever it reads, where
// parquet-go's own reader makes room for as many elements as a damaged list
// claims to have. After the first error, which it keeps, it returns zeros.
type compact struct {
	data []byte
	err  error
}

var errEndsEarly = errors.New("data ends early")

func (r *compact) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.data = nil
}

func (r *compact) byte() byte {
	if len(r.data) == 0 {
		r.fail(errEndsEarly)
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *compact) uvarint() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.fail(errEndsEarly)
		return 0
	}
	r.data = r.data[size:]
	return n
}

func (r *compact) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

// fields goes through the fields of a struct. Each must be read or skipped.
func (r *compact) fields() iter.Seq2[int16, thrift.Type] {
	return func(yield func(int16, thrift.Type) bool) {
		var id int16
		for {
			b := r.byte()
			kind := thrift.Type(b & 0xf)
			if kind == thrift.STOP {
				return
			}
			if delta := int16(b >> 4); delta != 0 {
				id += delta
			} else {
				id = int16(r.varint())
			}
			if !yield(id, kind) {
				return
			}
		}
	}
}

func (r *compact) int(kind thrift.Type) int64 {
	switch kind {
	case thrift.I16, thrift.I32, thrift.I64:
		return r.varint()
	}
	r.fail(fmt.Errorf("found %v instead of a number", kind))
	return 0
}

func (r *compact) binary(kind thrift.Type) []byte {
	if kind != thrift.BINARY {
		r.fail(fmt.Errorf("found %v instead of bytes", kind))
		return nil
	}
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.fail(errEndsEarly)
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

// list goes through the elements of a list of structs, by their position.
func (r *compact) structs(kind thrift.Type) iter.Seq[int] {
	return func(yield func(int) bool) {
		elements, n := r.list()
		if kind != thrift.LIST || elements != thrift.STRUCT {
			r.fail(fmt.Errorf("found %v of %v instead of a list of structs", kind, elements))
		}
		for i := 0; i < n && r.err == nil; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

func (r *compact) list() (elements thrift.Type, n int) {
	b := r.byte()
	size := uint64(b >> 4)
	if size == 0xf {
		size = r.uvarint()
	}
	if size > uint64(len(r.data)) { // every element takes a byte or more
		r.fail(errEndsEarly)
		return 0, 0
	}
	return thrift.Type(b & 0xf), int(size)
}

// maxDepth is far more than a Parquet footer nests.
const maxDepth = 16

func (r *compact) skip(kind thrift.Type) { r.skipAt(kind, 0) }

func (r *compact) skipAt(kind thrift.Type, depth int) {
	if depth > maxDepth {
		r.fail(errors.New("structs are nested too deeply"))
		return
	}
	switch kind {
	case thrift.TRUE, thrift.FALSE: // the value is in the type
	case thrift.I8:
		r.byte()
	case thrift.I16, thrift.I32, thrift.I64:
		r.uvarint()
	case thrift.BINARY:
		r.binary(kind)
	case thrift.LIST, thrift.SET:
		elements, n := r.list()
		for ; n > 0 && r.err == nil; n-- {
			if elements == thrift.TRUE || elements == thrift.FALSE {
				r.byte()
			} else {
				r.skipAt(elements, depth+1)
			}
		}
	case thrift.STRUCT:
		for _, kind := range r.fields() {
			r.skipAt(kind, depth+1)
		}
	default:
		r.fail(fmt.Errorf("found a field of type %v", kind))
	}
}
