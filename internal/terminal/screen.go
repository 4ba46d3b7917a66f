// Package terminal shows answers to people: tables that fit the terminal, times
// and sizes as people write them, colours where there is somebody to see them.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// Screen is where answers are shown.
type Screen struct {
	out    io.Writer
	width  int  // characters in a line; 0: any number
	colour bool // out is a terminal, and its user wants colours
	zone   *time.Location
}

// New returns a screen. Lines are cut and coloured only if out is a terminal;
// NO_COLOR (https://no-color.org) is respected. Times are shown in the zone.
func New(out io.Writer, zone *time.Location) *Screen {
	s := &Screen{out: out, zone: zone}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return s
	}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil {
		s.width = width
	}
	s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

// column is one of a table.
type column struct {
	name  string
	right bool // aligned, as numbers are
}

// table prints rows under the names of the columns.
func (s *Screen) table(columns []column, rows [][]string) {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Box.UnfinishedRow = unfinished
	style.Format.Header = text.FormatDefault
	style.Size.WidthMax = s.width
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	var head table.Row
	var configs []table.ColumnConfig
	for i, c := range columns {
		head = append(head, c.name)
		align := text.AlignLeft
		if c.right {
			align = text.AlignRight
		}
		configs = append(configs, table.ColumnConfig{Number: 1 + i, Align: align, AlignHeader: align})
	}
	t.AppendHeader(head)
	t.SetColumnConfigs(configs)
	for _, row := range rows {
		cells := make(table.Row, len(row))
		for i, text := range row {
			cells[i] = text
		}
		t.AppendRow(cells)
	}
	shown := t.Render()
	s.say("%s\n", shown)
	if strings.Contains(shown+"\n", unfinished+"\n") {
		s.say("some lines are longer than the terminal is wide: --output json has all of them\n")
	}
}

// unfinished is how a line ends that goes on.
const unfinished = " …"

// say prints. That nobody reads it any more is no failure of the answer.
func (s *Screen) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func (s *Screen) line(text string) error {
	_, err := fmt.Fprintln(s.out, text)
	return err
}

func (s *Screen) coloured(c text.Color, what string) string {
	if !s.colour || what == "" {
		return what
	}
	return c.Sprint(what)
}

// wholeTime has milliseconds: events follow each other quickly.
const wholeTime = "2006-01-02 15:04:05.000"

func (s *Screen) instant(t time.Time) string { return t.In(s.zone).Format("2006-01-02 15:04:05 MST") }

// Clear begins a terminal anew; anything else goes on.
func (s *Screen) Clear() {
	if s.width > 0 {
		s.say("\x1b[H\x1b[2J")
	}
}
