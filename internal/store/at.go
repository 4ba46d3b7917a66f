package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/query"
)

// At hands what was open at a moment to yield, at most as many as the limit: of
// what began in the recording that the moment is in, and had not ended. Where
// the moment is in no recording, that is the end of the one before.
//
// It looks at the id and the state of every event of that recording up to the
// moment, day by day, and remembers what is open.
func (s *Store) At(ctx context.Context, q query.At, yield func(query.Open) error) (answer query.Opened, err error) {
	if err := q.Validate(); err != nil {
		return answer, err
	}
	q.Type = s.own(q.Type)
	c := &census{s: s, ctx: ctx, q: q}
	for again := true; again; {
		if err := c.begin(&answer); err != nil {
			return answer, err
		}
		if err := c.takeAll(); err != nil {
			return answer, err
		}
		if again, err = c.isOutdated(); err != nil {
			return answer, err
		}
	}
	answer.Total = len(c.open)
	chosen := c.choose()
	rows, err := c.rows(chosen)
	if err != nil {
		return answer, err
	}
	ages, err := c.ages(rows)
	if err != nil {
		return answer, err
	}
	for _, id := range chosen {
		row, ok := rows[id]
		if !ok {
			continue // retention took it meanwhile
		}
		age, known := ages[id]
		if err := yield(query.Open{Row: row, Age: time.Duration(age), AgeKnown: known}); err != nil {
			return answer, err
		}
	}
	return answer, s.view(func(v *view) (err error) {
		window := query.Window{Since: time.Unix(0, c.recording.from).UTC(), Until: answer.Time}
		if c.recording.from == allTime.from { // nobody watched
			window.Since = answer.Time.Add(-1)
		}
		answer.Coverage, err = v.coverageOfOpen(q.Type, window, c.recording.until)
		return err
	})
}

// begin finds the recording, and its part up to the moment.
func (c *census) begin(answer *query.Opened) error {
	return c.s.view(func(v *view) (err error) {
		if answer.Time = c.q.Time; answer.Time.IsZero() {
			answer.Time = v.now
		}
		c.open, c.removals = map[thing]int64{}, v.removals(c.q.Type.Name)
		_, at := query.Window{Until: answer.Time}.Bounds()
		if c.recording, err = v.recordingAt(c.q.Type.Name, at); err != nil {
			return err
		}
		answer.AsOf = time.Unix(0, c.recording.until).UTC()
		c.in = span{c.recording.after, c.recording.until + 1}
		if c.in.from != allTime.from {
			c.in.from++
		}
		c.days, err = v.days(c.q.Type, c.in)
		return err
	})
}

// isOutdated tells whether events were removed since it began: of some the
// beginning may have been seen and the end not.
func (c *census) isOutdated() (outdated bool, err error) {
	return outdated, c.s.view(func(v *view) error {
		outdated = v.removals(c.q.Type.Name) != c.removals
		return nil
	})
}

// choose returns the ids of those to be told of, in order.
func (c *census) choose() []string {
	all := make([]mark, 0, len(c.open))
	for t, at := range c.open {
		all = append(all, mark{t, at})
	}
	slices.SortFunc(all, func(a, b mark) int {
		order := cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.number, b.number))
		if !c.q.Ascending {
			order = -order
		}
		return order
	})
	ids := make([]string, 0, min(len(all), c.q.Limit))
	c.times = make(map[string]int64, cap(ids))
	for _, m := range all[:cap(ids)] {
		id := event.FormatID(c.scopes[m.scope], m.number)
		ids = append(ids, id)
		c.times[id] = m.at
	}
	return ids
}

// rows reads the events with which some began. Those of an hour are likely in
// one block, and are read together.
func (c *census) rows(ids []string) (map[string]event.Row, error) {
	life, id := c.q.Type.Life, c.q.Type.MustColumn(c.q.Type.Life.ID)
	hours := map[int64][]string{}
	for _, id := range ids {
		hour := hourOf(c.times[id])
		hours[hour] = append(hours[hour], id)
	}
	rows := make(map[string]event.Row, len(ids))
	for _, ids := range hours {
		in := span{c.times[ids[0]], c.times[ids[0]] + 1}
		for _, id := range ids {
			in = span{min(in.from, c.times[id]), max(in.until, c.times[id]+1)}
		}
		search := c.s.newSearch(c.ctx, query.Events{Types: []*event.Type{c.q.Type}, Window: in.window(), Ascending: true, Filters: query.Filters{
			{Column: life.ID, Values: ids}, {Column: life.Begins.Column, Values: life.Begins.Values},
		}})
		search.hidden = true
		found, err := search.step(2*len(ids) + 1)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if text, _ := f.AppendText(nil, id); f.Time() == c.times[string(text)] {
				rows[string(text)] = f.Row
			}
		}
	}
	return rows, c.addCarried(rows, ids)
}

// addCarried adds the rows of those whose beginning was carried over.
func (c *census) addCarried(rows map[string]event.Row, ids []string) error {
	var missing []string
	in := span{allTime.until, allTime.from}
	for _, id := range ids {
		if _, ok := rows[id]; !ok {
			missing = append(missing, id)
			in = span{min(in.from, c.times[id]), max(in.until, c.times[id]+1)}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	life, id := c.q.Type.Life, c.q.Type.MustColumn(c.q.Type.Life.ID)
	found, err := c.s.carriedEvents(c.q.Type, in, query.Filters{
		{Column: life.ID, Values: missing}, {Column: life.Begins.Column, Values: life.Begins.Values},
	})
	if err != nil {
		return err
	}
	for i := range found.Len() {
		row := event.Row{Batch: found, Index: i}
		if text, _ := row.AppendText(nil, id); row.Time() == c.times[string(text)] {
			rows[string(text)] = row
		}
	}
	return nil
}

// ages returns how long they had been open, where that is known. What was found
// when the recording began may have been seen to begin in an earlier one.
func (c *census) ages(rows map[string]event.Row) (map[string]int64, error) {
	life := c.q.Type.Life
	ages := make(map[string]int64, len(rows))
	var found []string
	for id, row := range rows {
		if life.Found.Has(row) {
			found = append(found, id)
		} else {
			ages[id] = c.recording.until - row.Time()
		}
	}
	if len(found) == 0 || c.recording.bootID == "" {
		return ages, nil
	}
	before := span{until: c.in.from}
	err := c.s.view(func(v *view) (err error) {
		before.from, err = v.bootBegan(c.q.Type.Name, c.recording.bootID)
		return err
	})
	if err != nil || before.from >= before.until-1 {
		return ages, err
	}
	id := c.q.Type.MustColumn(life.ID)
	filters := query.Filters{{Column: life.ID, Values: found}, {Column: life.Begins.Column, Values: life.Begins.Values}}
	note := func(r event.Row) bool {
		if !life.Found.Has(r) {
			text, _ := r.AppendText(nil, id)
			ages[string(text)] = c.recording.until - r.Time()
		}
		return len(ages) < len(rows)
	}
	t := tale{s: c.s, ctx: c.ctx}
	if err := t.each(c.q.Type, before.window(), filters, false, len(found), note); err != nil || len(ages) == len(rows) {
		return ages, err
	}
	carried, err := c.s.carriedEvents(c.q.Type, before, filters)
	for i := range carried.Len() {
		note(event.Row{Batch: carried, Index: i})
	}
	return ages, err
}
