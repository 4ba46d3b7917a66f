package terminal

import (
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/srodi/ebpf-server/internal/event"
)

// How wide the columns of events are that are shown as they come; what is longer
// pushes the rest to the right.
var liveWidths = []int{23, 23, 23, 5, 22, 22}

// Live shows events as they come.
type Live struct {
	view   eventView
	fields []string
}

// Live returns what shows events one by one, or some fields of them.
func (s *Screen) Live(types []*event.Type, fields []string) *Live {
	return &Live{s.eventView(types), fields}
}

// Event shows one. It fails when nobody reads any more.
func (l *Live) Event(e Object) error {
	v := l.view
	cells := v.row(e)
	widths := liveWidths
	if len(l.fields) > 0 {
		cells, widths = nil, nil
		for _, name := range l.fields {
			cells = append(cells, v.field(e, name))
		}
	}
	var line strings.Builder
	for i, cell := range cells {
		if i < len(widths) {
			cell = text.Pad(cell, widths[i], ' ')
		}
		line.WriteString(cell)
		line.WriteString("  ")
	}
	shown := strings.TrimRight(line.String(), " ")
	if v.s.width > 0 {
		shown = text.Snip(shown, v.s.width, "…")
	}
	return v.s.line(shown)
}

// Missed says that events are not shown, with what the server knows of them.
func (l *Live) Missed(known string) error {
	return l.view.s.line(l.view.s.coloured(text.FgYellow, "! events are missing here: "+printable(known)))
}
