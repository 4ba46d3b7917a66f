package query

// Numbers are numbers by name, in the order of the names: one JSON object. A long
// series has thousands of them; a map takes several times as long to make, and
// to sort.
type Numbers []Number

// Number is one of Numbers.
type Number struct {
	Name  string
	Value int64
}

// MarshalJSON writes an object.
func (n Numbers) MarshalJSON() ([]byte, error) {
	var w jsonWriter
	w.numbers(n)
	return w.out, nil
}

// named is what figures have a number of, and where it is.
type named struct {
	name   string
	at     int  // the code of a value, or the position of a sum; -1: no event has the value
	always bool // also where the number is 0
}
