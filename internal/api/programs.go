package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/event"
)

// States of a Program.
const (
	StateRunning  = "running"
	StateFailed   = "failed"   // Error and Needs say why, and what would help
	StateDisabled = "disabled" // switched off in the configuration
)

// Program describes one monitor. NewProgram makes one.
type Program struct {
	Name       string           `json:"name" example:"connection"`        // Also the type of its events.
	Collection string           `json:"collection" example:"connections"` // Its name in API paths.
	Summary    string           `json:"summary"`
	State      string           `json:"state" enums:"running,failed,disabled"`
	Error      string           `json:"error,omitempty"` // Why it failed.
	Needs      string           `json:"needs,omitempty"` // What is missing for it to run, and how to get it.
	Hooks      []Hook           `json:"hooks"`
	Features   map[string]bool  `json:"features"` // What was looked for in the running kernel, and whether it was found.
	Seen       int64            `json:"seen"`     // What there was to record since the start: the sum of events, filtered, and lost in the kernel (but for program_skipped) or in decoding.
	Events     int64            `json:"events"`   // Events recorded since the start; one that stands for several counts as so many.
	Counts     map[string]int64 `json:"counts"`   // Of these events, by the column that summaries count by: state, drop_reason. Those without a value: under the empty name.
	Sums       map[string]int64 `json:"sums"`     // What the columns of these events add up to that summaries add up: bytes_sent.
	Lost       map[string]int64 `json:"lost"`     // Events lost since the start, by the place where.
	Filtered   map[string]int64 `json:"filtered"` // What was seen but is no event: "rule" (of the monitor: nothing was lost) or "excluded" (by the configuration).
	Unnamed    int64            `json:"unnamed"`  // Times that names (executable, parent, unit, container) were not told, because there were too many new ones at once.
	Columns    []Column         `json:"columns"`
}

// Hook is a place in the kernel where a program is attached.
type Hook struct {
	Name     string `json:"name" example:"inet_sock_set_state"`             // The eBPF program.
	Kind     string `json:"kind" example:"tp_btf"`                          // How it is attached.
	Target   string `json:"target,omitempty" example:"inet_sock_set_state"` // What it is attached to.
	Attached bool   `json:"attached"`
	Optional bool   `json:"optional"`                 // The monitor runs without it too, but knows less.
	Error    string `json:"error,omitempty"`          // Why it is not attached.
	Runs     int64  `json:"measured_runs"`            // Runs that were measured: the kernel does so one second in thirty.
	NSPerRun int64  `json:"ns_per_run" example:"310"` // How long these took on average, in nanoseconds.

	RunTime time.Duration `json:"-"` // How long these took together.
}

// Column describes one field of a program's events.
type Column struct {
	Name        string   `json:"name" example:"bytes_sent"`
	Type        string   `json:"type" enums:"time,int,string,ip,id"`
	Unit        string   `json:"unit,omitempty" example:"bytes"`
	Description string   `json:"description"`
	Values      []string `json:"values,omitempty"`  // All possible values, where the set is closed.
	Derived     bool     `json:"derived,omitempty"` // It follows from other columns: a field of events and a filter, but not stored, and nothing to group by.
}

// NewProgram fills in what follows from the declaration of the events; the
// rest is empty, and present, so that lists and maps are never null in JSON.
func NewProgram(t *event.Type) Program {
	p := Program{
		Name: t.Name, Collection: t.Collection, Summary: t.Summary, State: StateDisabled,
		Hooks: []Hook{}, Features: map[string]bool{}, Lost: map[string]int64{}, Filtered: map[string]int64{},
		Counts: map[string]int64{}, Sums: map[string]int64{},
	}
	for _, c := range t.Shown() {
		if c.Name == t.Breakdown {
			for _, value := range c.Values {
				p.Counts[value] = 0
			}
		}
		if c.Sum {
			p.Sums[c.Name] = 0
		}
		p.Columns = append(p.Columns, Column{Name: c.Name, Type: c.Kind.String(), Unit: c.Unit, Description: c.Description, Values: c.Values, Derived: t.IsDerived(c.Name)})
	}
	return p
}

// ProgramList is the answer of GET /api/programs.
type ProgramList struct {
	Programs []Program `json:"programs"`
}

// programs lists the monitors.
//
//	@Summary		Monitors, what they hook and what they cost
//	@Description	Every monitor with its state, the hooks it uses, the kernel features it found, its events, its losses and its columns.
//	@Tags			state
//	@ID				programs
//	@Produce		json
//	@Success		200		{object}	ProgramList
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/api/programs [get]
func (s *Server) programs(c echo.Context) error {
	if err := noParams(c.Request()); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, ProgramList{Programs: s.Programs.Programs()})
}
