package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/srodi/ebpf-server/internal/event"
)

// Object is an event, or a group of a summary, as the API has it.
type Object map[string]any

// decode reads JSON and keeps numbers as they are.
func decode(data []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return decoder.Decode(to)
}

// units knows the unit of a column by its name, whichever type has it.
type units map[string]string

func unitsOf(types []*event.Type) units {
	u := units{}
	for _, t := range types {
		for _, c := range t.Columns {
			u[c.Name] = c.Unit
		}
	}
	return u
}

// show returns a value as people write it; "" if there is none.
func (u units) show(name string, value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return printable(v)
	case json.Number:
		n, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return number(n, u[name], v.String())
	}
	return fmt.Sprint(value)
}

func number(n float64, unit, plain string) string {
	switch unit {
	case "ns":
		return duration(time.Duration(n))
	case "us":
		return duration(time.Duration(n * 1e3))
	case "bytes":
		if n >= 0 {
			return strings.Replace(humanize.IBytes(uint64(n)), " ", "", 1)
		}
	}
	return plain
}

// duration has no more digits than anybody reads.
func duration(d time.Duration) string {
	for _, unit := range []time.Duration{time.Minute, time.Second, time.Millisecond, time.Microsecond} {
		if d.Abs() >= unit {
			d = d.Round(unit / 100)
			break
		}
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// isNumber tells whether a value is to stand on the right.
func isNumber(value any) bool {
	_, ok := value.(json.Number)
	return ok
}

// printable takes the power over the terminal from what processes call themselves.
func printable(s string) string {
	for _, c := range s {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			quoted := fmt.Sprintf("%q", s)
			return quoted[1 : len(quoted)-1]
		}
	}
	return s
}
