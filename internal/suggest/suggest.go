// Package suggest helps a person who mistyped a name.
package suggest

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

const (
	// Names that differ in more letters are not alike.
	mostLetters = 2
	// A name may come with any length; longer ones are no mistyped names.
	longest = 100
)

// Among ends a message about an unknown name with the known one that was
// probably meant, or else with all of them.
func Among(name string, known []string) string {
	if like := Like(name, known); like != "" {
		return like
	}
	if len(known) == 0 {
		return " (there are none)"
	}
	return " (known are " + strings.Join(known, ", ") + ")"
}

// Like is Among for names of which there are too many to list: empty if none is alike.
func Like(name string, known []string) string {
	best, least := "", mostLetters+1
	for _, k := range known {
		if len(name) > longest {
			break
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}
