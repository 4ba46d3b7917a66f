package store

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// processors returns how many workers may be busy for one caller. It bounds the
// memory of a question.
func processors() int { return min(runtime.GOMAXPROCS(0), maxWorkers) }

const maxWorkers = 8

// inParallel does tasks by their number, each on a worker that is free. After an
// error a worker does no other, and the others none that is not begun.
func inParallel(workers, tasks int, do func(worker, task int) error) error {
	workers = min(workers, tasks)
	var next atomic.Int64
	errs := make([]error, workers)
	work := func(worker int) {
		errs[worker] = guard(func() error {
			for {
				task := int(next.Add(1)) - 1
				if task >= tasks {
					return nil
				}
				if err := do(worker, task); err != nil {
					next.Store(int64(tasks))
					return err
				}
			}
		})
	}
	var group sync.WaitGroup
	for worker := 1; worker < workers; worker++ {
		group.Go(func() { work(worker) })
	}
	if workers > 0 {
		work(0)
	}
	group.Wait()
	return errors.Join(errs...)
}
