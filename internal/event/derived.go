package event

import (
	"fmt"
	"slices"
)

// Derived declares a field that follows from columns of the same event. It is
// made when an event is shown or exported, and takes no room in the file.
type Derived struct {
	Column          // KindString
	From   []string // the columns that it follows from
	// Append appends its value, and reports whether there is one: of characters
	// that stand for themselves in JSON. The columns' positions come in the
	// order of From.
	Append func(dst []byte, row Row, from []int) ([]byte, bool)

	from []int
}

// setDerived checks Derived and makes shown.
func (t *Type) setDerived() error {
	t.Derived = slices.Clone(t.Derived)
	t.shown = slices.Clone(t.Columns)
	for i := range t.Derived {
		d := &t.Derived[i]
		twice := slices.ContainsFunc(t.shown, func(c Column) bool { return c.Name == d.Name })
		if twice || !nameForm.MatchString(d.Name) || d.Kind != KindString || d.Description == "" || d.Append == nil {
			return fmt.Errorf("declare event type %s: derived field %q needs a name of its own, a description, and what makes its text", t.Name, d.Name)
		}
		for _, name := range d.From {
			column, ok := t.index[name]
			if !ok {
				return fmt.Errorf("declare event type %s: %s is derived from %s, which is no column", t.Name, d.Name, name)
			}
			d.from = append(d.from, column)
		}
		t.shown = append(t.shown, d.Column)
	}
	return nil
}

// Shown returns all that an event may show: Columns, and behind these the
// derived fields.
func (t *Type) Shown() []Column { return t.shown }

// Field is Column for positions in Shown.
func (t *Type) Field(name string) (int, bool) {
	if i, ok := t.index[name]; ok {
		return i, true
	}
	i := slices.IndexFunc(t.Derived, func(d Derived) bool { return d.Name == name })
	return len(t.Columns) + i, i >= 0
}

// IsDerived tells whether there is a derived field of this name.
func (t *Type) IsDerived(name string) bool {
	i, ok := t.Field(name)
	return ok && i >= len(t.Columns)
}

// Sources returns the columns that a field follows from, by its position in
// Shown: a column from itself.
func (t *Type) Sources(field int) []int {
	if field < len(t.Columns) {
		return []int{field}
	}
	return t.Derived[field-len(t.Columns)].from
}
