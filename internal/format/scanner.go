package format

import (
	"encoding/json"
	"strconv"
)

// scanner takes the parts of a flat JSON object off the front of a line, as
// long as they are written plainly.
type scanner struct {
	rest []byte
}

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t') {
		s.rest = s.rest[1:]
	}
}

// take takes a character, with the space before it, if it comes next.
func (s *scanner) take(c byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// text takes a string.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	for i, c := range s.rest {
		switch {
		case c == '"':
			text := s.rest[:i:i]
			s.rest = s.rest[i+1:]
			return text, true
		case c == '\\':
			return s.escaped()
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// escaped takes the rest of a string that has escapes.
func (s *scanner) escaped() ([]byte, bool) {
	end := 0
	for end < len(s.rest) && s.rest[end] != '"' {
		if s.rest[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(s.rest) {
		return nil, false
	}
	var text string
	quoted := append(append([]byte{'"'}, s.rest[:end]...), '"')
	s.rest = s.rest[end+1:]
	err := json.Unmarshal(quoted, &text)
	return []byte(text), err == nil
}

// value takes a string, a whole number or null.
func (s *scanner) value() (text []byte, number int64, kind fieldKind, ok bool) {
	s.space()
	switch {
	case len(s.rest) == 0:
		return nil, 0, fieldNull, false
	case s.rest[0] == '"':
		text, ok = s.text()
		return text, 0, fieldText, ok
	case s.rest[0] == 'n':
		if len(s.rest) >= 4 && string(s.rest[:4]) == "null" {
			s.rest = s.rest[4:]
			return nil, 0, fieldNull, true
		}
		return nil, 0, fieldNull, false
	}
	number, ok = s.number()
	return nil, number, fieldNumber, ok
}

// safeDigits are as many as fit into 64 bits, whatever they are.
const safeDigits = 18

// number takes digits. What comes after them shows if they were no whole number.
func (s *scanner) number() (n int64, ok bool) {
	text, digits := s.rest, s.rest
	negative := len(digits) > 0 && digits[0] == '-'
	if negative {
		digits = digits[1:]
	}
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		n = 10*n + int64(digits[end]-'0')
		end++
	}
	s.rest = digits[end:]
	if negative {
		n = -n
	}
	if end > safeDigits {
		var err error
		if n, err = strconv.ParseInt(string(text[:len(text)-len(s.rest)]), 10, 64); err != nil {
			return 0, false
		}
	}
	return n, end > 0 && (end == 1 || digits[0] != '0')
}
