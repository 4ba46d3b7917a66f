package terminal

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/srodi/ebpf-server/internal/query"
)

// Why a part of the window was not recorded, for people.
var gapReasons = map[string]string{
	query.GapNotRunning: "ebpf-server did not run",
	query.GapCrashed:    "ebpf-server crashed",
	query.GapDisabled:   "the monitor was off",
	query.GapRetention:  "removed by retention",
	query.GapNotYet:     "still to come",
	query.GapDamaged:    "a block of the file is damaged",
}

// Coverage says how far the answer can be trusted.
func (s *Screen) Coverage(c query.Coverage) {
	for _, gap := range c.Gaps {
		what := "events"
		if gap.Type != "" {
			what = gap.Type
		}
		reason := gapReasons[gap.Reason]
		if reason == "" {
			reason = gap.Reason
		}
		if gap.Until.Sub(gap.From) < time.Microsecond { // of a moment
			s.warn("no %s at %s: %s", what, s.instant(gap.Until), reason)
			continue
		}
		s.warn("no %s from %s for %s: %s", what, s.instant(gap.From), duration(gap.Until.Sub(gap.From)), reason)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Lost)) {
		s.warn("%s %s events were lost in this window", humanize.Comma(c.Lost[name]), name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Filtered)) {
		for _, kind := range slices.Sorted(maps.Keys(c.Filtered[name])) {
			by := "the configuration (exclude, include, own_api)"
			if kind != "excluded" {
				by = "a rule of the monitor (docs/architecture.md)"
			}
			s.say("%s %s events were left out by %s\n", humanize.Comma(c.Filtered[name][kind]), name, by)
		}
	}
	if c.Complete {
		s.say("complete: all of %s to %s was recorded, nothing was lost\n", s.instant(c.From), s.instant(c.Until))
	}
}

func (s *Screen) warn(format string, args ...any) {
	s.say("%s\n", s.coloured(text.FgYellow, "! "+fmt.Sprintf(format, args...)))
}
