package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/query"
)

// Health is the answer of GET /health.
type Health struct {
	Status   string           `json:"status" enums:"ok,degraded,down"` // ok; degraded: a program failed; down: nothing is being recorded.
	Version  string           `json:"version"`
	Started  time.Time        `json:"started"`
	UptimeS  int64            `json:"uptime_s"`
	Programs []ProgramHealth  `json:"programs"`
	Store    StoreHealth      `json:"store"`
	Lost     map[string]int64 `json:"lost"` // Events lost since the start, by type.
}

// ProgramHealth is the short form of a Program.
type ProgramHealth struct {
	Name  string `json:"name"`
	State string `json:"state" enums:"running,failed,disabled"`
	Error string `json:"error,omitempty"`
}

// StoreHealth says how the db file is doing.
type StoreHealth struct {
	Path      string    `json:"path"`
	FileBytes int64     `json:"file_bytes"`
	Events    int64     `json:"events"`               // Events in the file and in memory.
	Pending   int64     `json:"pending"`              // Events in memory that are not in the file yet.
	LastFlush time.Time `json:"last_flush,omitzero"`  // When events last went to the file.
	LastError string    `json:"last_error,omitempty"` // Why they cannot be written now.
}

// health tells whether events are being recorded.
//
//	@Summary		Is everything being recorded?
//	@Description	Never asks for a token. 503 when no program runs or the db file cannot be written.
//	@Tags			state
//	@ID				health
//	@Produce		json
//	@Success		200		{object}	Health	"Recording."
//	@Failure		503		{object}	Health	"Nothing is being recorded; `status` is `down`."
//	@Failure		default	{object}	Problem	"Any other problem."
//	@Router			/health [get]
func (s *Server) health(c echo.Context) error {
	if err := noParams(c.Request()); err != nil {
		return err
	}
	h := Health{
		Status:   "ok",
		Version:  s.Version,
		Started:  s.Started.UTC(),
		UptimeS:  int64(time.Since(s.Started).Seconds()),
		Programs: []ProgramHealth{},
		Store:    storeHealth(s.Store.Status()),
		Lost:     map[string]int64{},
	}
	running := false
	for _, p := range s.Programs.Programs() {
		h.Programs = append(h.Programs, ProgramHealth{Name: p.Name, State: p.State, Error: p.Error})
		switch p.State {
		case StateRunning:
			running = true
		case StateFailed:
			h.Status = "degraded"
		}
		for _, n := range p.Lost {
			h.Lost[p.Name] += n
		}
	}
	status := http.StatusOK
	if !running || h.Store.LastError != "" {
		h.Status, status = "down", http.StatusServiceUnavailable
	}
	return c.JSON(status, h)
}

func storeHealth(st query.Status) StoreHealth {
	h := StoreHealth{Path: st.Path, FileBytes: st.Bytes, Pending: st.Pending, LastFlush: st.LastFlush, LastError: st.LastError}
	for _, t := range st.Types {
		h.Events += t.Events
	}
	return h
}
