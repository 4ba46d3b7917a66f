package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/srodi/ebpf-server/internal/query"
)

// Storage is what can be asked of the db file itself; *store.Store is one.
type Storage interface {
	// Storage tells what takes how much room; in detail also hour by hour.
	Storage(detail bool) (query.Storage, error)
	// Snapshot writes a consistent copy of the file and returns its size.
	Snapshot(ctx context.Context, w io.Writer) (int64, error)
	AddPin(since, until time.Time, note string) (query.Pin, error)
	Pins() ([]query.Pin, error)
	// RemovePin fails with query.ErrNoPin if there is no such pin.
	RemovePin(id string) error
}

// maxNote bounds what a person may write on a pin, in bytes.
const maxNote = 1000

// storage tells what takes how much room and how long events are kept.
//
//	@Summary		File size, events and bytes per type, and retention
//	@Description	What the db file holds of each type, what it takes, and how long it is kept: configured, actual and projected.
//	@Tags			storage
//	@ID				storage
//	@Produce		json
//	@Param			detail	query		boolean	false	"Also every hour that the file holds."
//	@Success		200		{object}	query.Storage
//	@Failure		default	{object}	Problem
//	@Router			/api/storage [get]
func (s *Server) storage(c echo.Context) error {
	p, err := queryParams(c.Request())
	if err != nil {
		return err
	}
	if err := p.Only([]string{"detail"}); err != nil {
		return err
	}
	detail, err := p.Bool("detail")
	if err != nil {
		return err
	}
	answer, err := s.Store.Storage(detail)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer)
}

// snapshot streams a copy of the db file.
//
//	@Summary		A consistent copy of the db file, while running
//	@Description	The copy holds everything recorded before the request. The same program reads it on any machine (--db). An answer that breaks off is no copy.
//	@Tags			storage
//	@ID				snapshot
//	@Produce		octet-stream
//	@Success		200		{file}		file
//	@Failure		default	{object}	Problem
//	@Router			/api/storage/snapshot [get]
func (s *Server) snapshot(c echo.Context) error {
	if err := noParams(c.Request()); err != nil {
		return err
	}
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, "application/octet-stream")
	header.Set(echo.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="ebpf-server-%s.db"`, time.Now().UTC().Format("20060102T150405Z")))
	// If it fails after a part was sent, fail breaks the connection: it is no copy.
	_, err := s.Store.Snapshot(c.Request().Context(), c.Response())
	return err
}

// PinList is the answer of GET /api/storage/pins.
type PinList struct {
	Pins []query.Pin `json:"pins"`
}

// pins lists the windows that retention leaves alone.
//
//	@Summary	Windows that retention leaves alone
//	@Tags		storage
//	@ID			pins
//	@Produce	json
//	@Success	200		{object}	PinList
//	@Failure	default	{object}	Problem
//	@Router		/api/storage/pins [get]
func (s *Server) pins(c echo.Context) error {
	if err := noParams(c.Request()); err != nil {
		return err
	}
	list, err := s.Store.Pins()
	if err != nil {
		return err
	}
	if list == nil {
		list = []query.Pin{}
	}
	return c.JSON(http.StatusOK, PinList{Pins: list})
}

// addPin keeps the events of a window.
//
//	@Summary		Keep the events of a window
//	@Description	Events in the window stay, whatever their age and the size of the file, until the pin is removed.
//	@Tags			storage
//	@ID				add-pin
//	@Accept			json
//	@Produce		json
//	@Param			request	body		object	true	"since and until (RFC 3339, Unix seconds, or relative) and a note for people."	example({"since":"-2h","until":"now","note":"incident 42"})
//	@Success		201		{object}	query.Pin
//	@Failure		400		{object}	Problem	"A parameter is wrong; `field` names it."
//	@Failure		default	{object}	Problem
//	@Router			/api/storage/pins [post]
func (s *Server) addPin(c echo.Context) error {
	p, err := bodyParams(c)
	if err != nil {
		return err
	}
	if err := p.Only([]string{"since", "until", "note"}); err != nil {
		return err
	}
	w, err := p.Window(time.Now())
	switch {
	case err != nil:
		return err
	case w.Since.IsZero():
		return &query.ParamError{Name: "since", Reason: "is missing: say where the window begins"}
	case w.Until.IsZero():
		return &query.ParamError{Name: "until", Reason: "is missing: say where the window ends"}
	}
	note := ""
	if values := p["note"]; len(values) > 0 {
		note = values[0]
	}
	if len(note) > maxNote {
		return &query.ParamError{Name: "note", Reason: fmt.Sprintf("has more than %d bytes", maxNote)}
	}
	pin, err := s.Store.AddPin(w.Since, w.Until, note)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, pin)
}

// removePin lets retention have the events again.
//
//	@Summary	Remove a pin
//	@Tags		storage
//	@ID			remove-pin
//	@Param		id		path	string	true	"Id of the pin."
//	@Success	204		"Removed; retention may take its events."
//	@Failure	404		{object}	Problem	"There is no such pin."
//	@Failure	default	{object}	Problem
//	@Router		/api/storage/pins/{id} [delete]
func (s *Server) removePin(c echo.Context) error {
	if err := noParams(c.Request()); err != nil {
		return err
	}
	err := s.Store.RemovePin(c.Param("id"))
	if errors.Is(err, query.ErrNoPin) {
		return newProblem(http.StatusNotFound, fmt.Sprintf("there is no pin %q", c.Param("id")))
	}
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
