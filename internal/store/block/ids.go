package block

import (
	"bytes"
	"fmt"

	"github.com/parquet-go/parquet-go/format"
)

// idParser reads ids and gives their scopes codes. There are few scopes: one
// for each boot of the host.
type idParser struct {
	scopes []string
	codes  map[string]uint32
	last   uint32 // code of the last id's scope
}

func (p *idParser) parse(text []byte) (scope uint32, n int64, err error) {
	if p.last > 0 { // most are of the same scope as the one before
		last := p.scopes[p.last-1]
		if cut := len(last); cut < len(text) && text[cut] == '-' && string(text[:cut]) == last {
			if n, ok := parseHex(text[cut+1:]); ok {
				return p.last, n, nil
			}
		}
	}
	cut := bytes.LastIndexByte(text, '-')
	n, ok := parseHex(text[cut+1:])
	if cut < 0 || !ok {
		return 0, 0, fmt.Errorf("%q is not an id", text)
	}
	last := string(text[:cut])
	if p.last = p.codes[last]; p.last == 0 {
		if p.codes == nil {
			p.codes = make(map[string]uint32)
		}
		p.scopes = append(p.scopes, last)
		p.last = uint32(len(p.scopes))
		p.codes[last] = p.last
	}
	return p.last, n, nil
}

// decode reads the ids at the front of a page.
func (p *idParser) decode(ints []int64, codes []uint32, encoding format.Encoding, values []byte) error {
	if encoding != format.Plain {
		return errEncoding(encoding)
	}
	for i := range ints {
		text, rest, err := nextText(values)
		if err != nil {
			return err
		}
		values = rest
		if codes[i], ints[i], err = p.parse(text); err != nil {
			return err
		}
	}
	return nil
}

// pick reads the ids at some places of a page.
func (p *idParser) pick(ints []int64, codes []uint32, places []int32, encoding format.Encoding, values []byte) error {
	if encoding != format.Plain {
		return errEncoding(encoding)
	}
	next := int32(0)
	for i, place := range places {
		var text []byte
		for ; next <= place; next++ {
			var err error
			if text, values, err = nextText(values); err != nil {
				return err
			}
		}
		var err error
		if codes[i], ints[i], err = p.parse(text); err != nil {
			return err
		}
	}
	return nil
}
