package format

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
)

// ZeekType is the type of events that a conn.log can have.
const ZeekType = "connection"

// The columns of Zeek's conn.log, with those of its script community-id-logging,
// and what they are of a connection. What only a look at the packets tells
// (service, history, packets, gaps) is not set.
var zeekColumns = []struct {
	name, kind string
	of         func(c *zeekRow) string
}{
	{"ts", "time", func(c *zeekRow) string { return seconds(c.began()) }},
	{"uid", "string", func(c *zeekRow) string { return zeekText(c.text("connection_id")) }},
	{"id.orig_h", "addr", func(c *zeekRow) string { return c.text("source_ip") }},
	{"id.orig_p", "port", func(c *zeekRow) string { return c.text("source_port") }},
	{"id.resp_h", "addr", func(c *zeekRow) string { return c.text("destination_ip") }},
	{"id.resp_p", "port", func(c *zeekRow) string { return c.text("destination_port") }},
	{"proto", "enum", func(c *zeekRow) string { return c.text("protocol") }},
	{"service", "string", nil},
	{"duration", "interval", (*zeekRow).duration},
	{"orig_bytes", "count", func(c *zeekRow) string { return c.of("outbound", "bytes_sent", "bytes_received") }},
	{"resp_bytes", "count", func(c *zeekRow) string { return c.of("inbound", "bytes_sent", "bytes_received") }},
	{"conn_state", "string", (*zeekRow).state},
	{"local_orig", "bool", func(c *zeekRow) string { return c.isLocal("outbound") }},
	{"local_resp", "bool", func(c *zeekRow) string { return c.isLocal("inbound") }},
	{"missed_bytes", "count", nil},
	{"history", "string", nil},
	{"orig_pkts", "count", nil},
	{"orig_ip_bytes", "count", nil},
	{"resp_pkts", "count", nil},
	{"resp_ip_bytes", "count", nil},
	{"tunnel_parents", "set[string]", nil},
	{"community_id", "string", func(c *zeekRow) string { return c.text("community_id") }},
}

// zeekWriter writes connections that failed or ended as Zeek's conn.log, in its
// own tab-separated form (ASCII writer).
type zeekWriter struct {
	out *bufio.Writer
}

func newZeekWriter(w io.Writer, now time.Time) (*zeekWriter, error) {
	z := &zeekWriter{bufio.NewWriterSize(w, 1<<16)}
	var names, kinds []string
	for _, c := range zeekColumns {
		names, kinds = append(names, c.name), append(kinds, c.kind)
	}
	_, err := fmt.Fprintf(z.out, "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t%s\n#fields\t%s\n#types\t%s\n",
		zeekDate(now), strings.Join(names, "\t"), strings.Join(kinds, "\t"))
	return z, err
}

func zeekDate(t time.Time) string { return t.UTC().Format("2006-01-02-15-04-05") }

// Write leaves out what is no end of a connection.
func (z *zeekWriter) Write(row event.Row) error {
	if name := row.Batch.Type.Name; name != ZeekType {
		return fmt.Errorf("a conn.log of Zeek has connections only, no events of type %s", name)
	}
	c := zeekRow{row}
	if state := c.text("state"); state != "closed" && state != "failed" {
		return nil
	}
	end := byte('\t')
	for i, column := range zeekColumns {
		text := ""
		if column.of != nil {
			text = column.of(&c)
		}
		if text == "" {
			text = "-"
		}
		if i == len(zeekColumns)-1 {
			end = '\n'
		}
		_, _ = z.out.WriteString(text) // an error comes again at the end of the line
		if err := z.out.WriteByte(end); err != nil {
			return err
		}
	}
	return nil
}

func (z *zeekWriter) Close() error {
	if _, err := fmt.Fprintf(z.out, "#close\t%s\n", zeekDate(time.Now())); err != nil {
		return err
	}
	return z.out.Flush()
}

type zeekRow struct{ event.Row }

// text returns a field as it is printed; "" if it is not known.
func (c *zeekRow) text(name string) string {
	i, ok := c.Batch.Type.Field(name)
	if !ok {
		return ""
	}
	text, _ := c.AppendText(nil, i)
	return string(text)
}

func (c *zeekRow) number(name string) (n int64, ok bool) {
	i, ok := c.Batch.Type.Column(name)
	if !ok {
		return 0, false
	}
	return c.Int(i)
}

// began is when the connection did, where that is known, or else when it ended.
func (c *zeekRow) began() int64 {
	took, _ := c.number("duration_ns")
	return c.Time() - took
}

func (c *zeekRow) duration() string {
	took, ok := c.number("duration_ns")
	if !ok {
		return ""
	}
	return seconds(took)
}

func seconds(ns int64) string { return strconv.FormatFloat(float64(ns/1000)/1e6, 'f', 6, 64) }

// of returns one column where the connection has this direction, and another
// where it has the other one: Zeek tells apart who opened it, we who this host is.
func (c *zeekRow) of(direction, is, other string) string {
	switch c.text("direction") {
	case direction:
		return c.text(is)
	case "":
		return ""
	}
	return c.text(other)
}

// isLocal tells that an end is this host. Of the other end that is not known.
func (c *zeekRow) isLocal(direction string) string {
	if c.text("direction") == direction {
		return "T"
	}
	return ""
}

// state is Zeek's conn_state as far as this host's end of a connection tells.
func (c *zeekRow) state() string {
	failed := c.text("state") == "failed"
	resetBy := c.text("reset_by")
	switch {
	case c.text("protocol") == "udp" && !failed:
		return c.udpState()
	case c.text("protocol") != "tcp":
		return "OTH"
	case failed && resetBy == "remote":
		return "REJ"
	case failed && c.text("error") == "ETIMEDOUT":
		return "S0"
	case failed:
		return "OTH"
	case resetBy == "":
		if code, ok := c.number("return_code"); ok && code == 0 {
			return "SF"
		}
		return "OTH"
	case c.text("direction") == "":
		return "OTH"
	case (resetBy == "local") == (c.text("direction") == "outbound"):
		return "RSTO"
	}
	return "RSTR"
}

func (c *zeekRow) udpState() string {
	sent, received := c.of("outbound", "messages_sent", "messages_received"), c.of("inbound", "messages_sent", "messages_received")
	switch {
	case sent == "" || received == "" || sent == "0" && received == "0":
		return "OTH"
	case received == "0":
		return "S0"
	case sent == "0":
		return "SHR"
	}
	return "SF"
}

// zeekText escapes what would be read as something else.
func zeekText(text string) string {
	if text == "-" || text == "(empty)" {
		return fmt.Sprintf(`\x%02x%s`, text[0], text[1:])
	}
	var out strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c == 0x7f || c == '\\' {
			fmt.Fprintf(&out, `\x%02x`, c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}
