package event

import "unsafe"

// About what Vector.index takes, and each value in it.
const (
	smallMap = 250
	mapEntry = 30
)

// Size returns about how many bytes of memory a batch takes.
func (b *Batch) Size() int {
	size := int(unsafe.Sizeof(*b)) + cap(b.Columns)*int(unsafe.Sizeof(Vector{}))
	for i := range b.Columns {
		v := &b.Columns[i]
		if v.absent { // its memory is that of all absent columns
			continue
		}
		size += 8*cap(v.Ints) + cap(v.Valid) + 4*cap(v.Codes) + int(unsafe.Sizeof(""))*cap(v.Dict)
		if v.index != nil {
			size += smallMap + mapEntry*len(v.index)
		}
		for _, s := range v.Dict {
			size += len(s)
		}
	}
	return size
}
