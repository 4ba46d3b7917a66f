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

// setDerived checks Derived and makes fields.
func (t *Type) setDerived() error {
	t.Derived = slices.Clone(t.Derived)
	t.fields = slices.Clone(t.Columns)
	for i := range t.Derived {
		d := &t.Derived[i]
		_, twice := t.index[d.Name]
		if twice || t.IsDerived(d.Name) || !nameForm.MatchString(d.Name) || d.Kind != KindString || d.Description == "" || d.Append == nil {
			return fmt.Errorf("declare event type %s: derived field %q needs a name of its own, a description, and what makes its text", t.Name, d.Name)
		}
		for _, name := range d.From {
			column, ok := t.index[name]
			if !ok {
				return fmt.Errorf("declare event type %s: %s is derived from %s, which is no column", t.Name, d.Name, name)
			}
			d.from = append(d.from, column)
		}
		t.fields = append(t.fields, d.Column)
	}
	return nil
}

// Fields returns all that an event may show: Columns, and then those of
// Derived. Row.AppendText takes a position in it.
func (t *Type) Fields() []Column { return t.fields }

// IsDerived tells whether Fields has a derived one of this name.
func (t *Type) IsDerived(name string) bool {
	return len(t.fields) > len(t.Columns) && slices.ContainsFunc(t.fields[len(t.Columns):], func(c Column) bool { return c.Name == name })
}

// Positions returns where in Fields those are that the type has, in the order of
// the names; "type" becomes TypeField.
func (t *Type) Positions(names ...string) []int {
	positions := make([]int, 0, len(names))
	for _, name := range names {
		at := slices.IndexFunc(t.fields, func(c Column) bool { return c.Name == name })
		if name == "type" {
			at = TypeField
		} else if at < 0 {
			continue
		}
		positions = append(positions, at)
	}
	return positions
}

// Sources returns the columns that a field, by its position in Fields, is made of:
// the column itself, if it is not derived.
func (t *Type) Sources(field int) []int {
	if field < len(t.Columns) {
		return []int{field}
	}
	return t.Derived[field-len(t.Columns)].from
}
