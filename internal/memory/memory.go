// Package memory says how much the program may take beyond what is in use.
package memory

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// headroom is what may be allocated between two collections when little is
	// in use, as while a question is answered: Go's own 4 MB make it collect
	// several times for one answer, which takes as long as the answer.
	headroom = 16 << 20
	// percent is what is added when much is in use, as during an import. With
	// Go's 100 the program would take twice of that.
	percent = 25
)

// ballast is counted as in use and never touched, so that it takes no memory:
// it is what the headroom is the percentage of. A limit (GOMEMLIMIT) would not
// do: where more is in use than the limit the program collects all the time.
var ballast []byte

// Bound sets how often memory is collected, unless the user did so (GOGC).
func Bound() {
	if os.Getenv("GOGC") != "" {
		return
	}
	ballast = make([]byte, headroom*100/percent)
	runtime.KeepAlive(ballast)
	debug.SetGCPercent(percent)
}
