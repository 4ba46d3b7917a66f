package event

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// AppendText appends the value of a column as it is printed for people and in
// CSV, and reports whether there is one. The column is a position in
// Type.Shown.
func (r Row) AppendText(dst []byte, column int) ([]byte, bool) {
	if stored := len(r.Batch.Type.Columns); column >= stored {
		d := &r.Batch.Type.Derived[column-stored]
		return d.Append(dst, r, d.from)
	}
	kind := r.Batch.Type.Columns[column].Kind
	switch kind {
	case KindTime:
		return time.Unix(0, r.Time()).UTC().AppendFormat(dst, time.RFC3339Nano), true
	case KindInt:
		n, ok := r.Int(column)
		if !ok {
			return dst, false
		}
		return strconv.AppendInt(dst, n, 10), true
	}
	s, ok := r.String(column)
	if !ok {
		return dst, false
	}
	switch kind {
	case KindIP:
		ip, _ := netip.AddrFromSlice([]byte(s))
		return ip.AppendTo(dst), true
	case KindID:
		dst = append(append(dst, s...), '-')
		return strconv.AppendUint(dst, uint64(r.Batch.Columns[column].Ints[r.Index]), 16), true
	}
	return append(dst, s...), true
}

// AppendJSON appends the event as one JSON object without a line end, columns
// in the order of Type.Shown, absent ones left out.
func (r Row) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"time":"`...)
	dst, _ = r.AppendText(dst, Time)
	dst = append(dst, `","type":"`...)
	dst = append(append(dst, r.Batch.Type.Name...), '"')
	shown := r.Batch.Type.shown
	for i := 1; i < len(shown); i++ {
		mark := len(dst)
		dst = append(append(append(dst, `,"`...), shown[i].Name...), `":`...)
		var present bool
		if dst, present = r.appendJSONValue(dst, i); !present {
			dst = dst[:mark]
		}
	}
	return append(dst, '}')
}

// TypeField stands for the type's name among positions of columns.
const TypeField = -1

// AppendFields is AppendJSON with nothing but some fields, in their order.
func (r Row) AppendFields(dst []byte, columns []int) []byte {
	dst = append(dst, '{')
	begin := len(dst)
	for _, i := range columns {
		mark := len(dst)
		if mark > begin {
			dst = append(dst, ',')
		}
		if i == TypeField {
			dst = append(append(append(dst, `"type":"`...), r.Batch.Type.Name...), '"')
			continue
		}
		dst = append(append(append(dst, '"'), r.Batch.Type.shown[i].Name...), `":`...)
		var present bool
		if dst, present = r.appendJSONValue(dst, i); !present {
			dst = dst[:mark]
		}
	}
	return append(dst, '}')
}

// appendJSONValue reports false, whatever it appended, if the value is absent.
func (r Row) appendJSONValue(dst []byte, column int) (_ []byte, present bool) {
	if column >= len(r.Batch.Type.Columns) { // a derived one, which needs no escapes
		dst, present = r.AppendText(append(dst, '"'), column)
		return append(dst, '"'), present
	}
	switch r.Batch.Type.Columns[column].Kind {
	case KindInt:
		return r.AppendText(dst, column)
	case KindString:
		s, present := r.String(column)
		if present {
			dst = AppendJSONString(dst, s)
		}
		return dst, present
	}
	dst, present = r.AppendText(append(dst, '"'), column)
	return append(dst, '"'), present
}

// plain are the bytes that JSON has as they are.
var plain = func() (is [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		is[c] = !strings.ContainsRune(`"\<>&`, rune(c))
	}
	return is
}()

// AppendJSONString appends a text as encoding/json does. It takes the short way for
// plain ASCII; a command may hold any byte.
func AppendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if !plain[s[i]] {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// ParseIP reads an address as the KindIP columns hold it: 4 or 16 raw bytes.
func ParseIP(text string) (string, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" {
		return "", fmt.Errorf("%q is not an IP address", text)
	}
	return string(ip.Unmap().AsSlice()), nil
}

// FormatID returns an id as it is printed.
func FormatID(scope string, n int64) string { return scope + "-" + strconv.FormatUint(uint64(n), 16) }

// ParseID reads an id as it is printed: its scope and number.
func ParseID(text string) (scope string, n int64, err error) {
	cut := strings.LastIndexByte(text, '-')
	if cut < 1 {
		return "", 0, fmt.Errorf("%q is not an id (want scope-hex)", text)
	}
	u, err := strconv.ParseUint(text[cut+1:], 16, 64)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not an id (want scope-hex)", text)
	}
	return text[:cut], int64(u), nil
}
