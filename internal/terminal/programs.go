package terminal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/srodi/ebpf-server/internal/api"
)

// ProgramList is the answer of GET /api/programs.
type ProgramList struct{ Programs []api.Program }

// Programs shows the monitors, and if wanted their hooks.
func (s *Screen) Programs(programs []api.Program, hooks bool) {
	columns := []column{{name: "program"}, {name: "state"}, {name: "seen", right: true}, {name: "events", right: true}, {name: "lost"}, {name: "filtered"}, {name: "not on this kernel"}}
	rows := make([][]string, len(programs))
	for i, p := range programs {
		var missing []string
		for _, name := range slices.Sorted(maps.Keys(p.Features)) {
			if !p.Features[name] {
				missing = append(missing, name)
			}
		}
		rows[i] = []string{p.Name, s.state(p.State), humanize.Comma(p.Seen), humanize.Comma(p.Events), s.coloured(text.FgYellow, counts(p.Lost)), counts(p.Filtered), strings.Join(missing, " ")}
	}
	s.table(columns, rows)
	for _, p := range programs {
		if p.Error != "" {
			s.warn("%s: %s (%s)", p.Name, p.Error, p.Needs)
		}
	}
	if hooks {
		s.hooks(programs)
	}
}

func (s *Screen) hooks(programs []api.Program) {
	columns := []column{{name: "program"}, {name: "hook"}, {name: "kind"}, {name: "attached to"}, {name: "measured runs", right: true}, {name: "ns per run", right: true}, {name: "problem"}}
	var rows [][]string
	for _, p := range programs {
		for _, h := range p.Hooks {
			rows = append(rows, []string{p.Name, h.Name, h.Kind, h.Target, humanize.Comma(h.Runs), humanize.Comma(h.NSPerRun), h.Error})
		}
	}
	s.say("\n")
	s.table(columns, rows)
}

func (s *Screen) state(name string) string {
	switch name {
	case api.StateRunning:
		return s.coloured(text.FgGreen, name)
	case api.StateFailed:
		return s.coloured(text.FgRed, name)
	}
	return name
}

// counts shows those that are not 0.
func counts(by map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if by[name] != 0 {
			parts = append(parts, fmt.Sprintf("%s=%s", name, humanize.Comma(by[name])))
		}
	}
	return strings.Join(parts, " ")
}
