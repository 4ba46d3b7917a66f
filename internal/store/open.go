package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/srodi/ebpf-server/internal/event"
	"github.com/srodi/ebpf-server/internal/store/block"
	"github.com/srodi/ebpf-server/migrations"
)

// Buckets and keys; docs/format.md draws them.
var (
	bucketMeta     = []byte("meta")
	bucketSchemas  = []byte("schemas")
	bucketRemoved  = []byte("removed")
	bucketEvents   = []byte("events")
	bucketHours    = []byte("hours")
	bucketCoverage = []byte("coverage")
	bucketRuns     = []byte("runs")
	bucketLosses   = []byte("losses")
	bucketLost     = []byte("lost")
	bucketFiltered = []byte("filtered")
	bucketSegments = []byte("segments")
	bucketBlocks   = []byte("blocks")
	bucketIndexes  = []byte("indexes")
	bucketRollups  = []byte("rollups")
	bucketDays     = []byte("days")
	bucketPins     = []byte("pins")
	bucketCarried  = []byte("carried")
	bucketSince    = []byte("since")

	keyCreated  = []byte("created")
	keyFlush    = []byte("flush")
	keyBlock    = []byte("b")
	keyChecksum = []byte("c")
	keyRun      = []byte("run")
)

// allBuckets are those that a file has from the start, each with its parent.
var allBuckets = [][][]byte{
	{bucketMeta}, {bucketMeta, bucketSchemas}, {bucketMeta, bucketRemoved}, {bucketEvents}, {bucketHours},
	{bucketCoverage}, {bucketCoverage, bucketRuns}, {bucketCoverage, bucketLosses}, {bucketCoverage, bucketLost},
	{bucketSegments}, {bucketBlocks}, {bucketIndexes}, {bucketRollups}, {bucketDays}, {bucketPins},
}

// growStep is how much the file grows by. bbolt's own 16 MiB are more than a
// quiet host records in days; each step costs an fsync.
const growStep = 2 << 20

// mapSize is how much address space a file has from the beginning. To map more
// bbolt waits for all readers; and if that fails, as on a disk that has become
// read-only, it is left with no map at all, and answers nothing until it is opened again.
const mapSize = 1 << 30

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = time.Second

// Open opens the file, or makes a new one and its folder. It fails with ErrInUse
// when another process has it.
func Open(o Options) (*Store, error) {
	if o.FlushInterval <= 0 {
		o.FlushInterval = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.sealAfter == 0 {
		o.sealAfter = defaultSealAfter
	}
	s := &Store{
		options: o, log: o.Logger, now: o.now,
		types: make(map[string]*event.Type), spares: make(map[string]sparesOfType), forms: make(map[string]uint32),
		wake: make(chan struct{}, 1), filled: make(chan struct{}, 1), encoders: make(spares[*block.Encoder], maxEncoders), buffers: make(spares[[]byte], maxEncoders), kept: newKeptBlocks(maxKept), stop: make(chan struct{}),
		appended: make(map[string]int64), lost: make(map[lossKey]int64), written: make(map[hourOfType]time.Time), sealedAt: make(map[hourOfType]time.Time),
	}
	s.SetLimits(o.Limits)
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open database %s: %w", o.Path, err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if err := checkPath(s.options.Path, s.options.ReadOnly); err != nil {
		return err
	}
	if s.db, s.file, err = openFile(s.options.Path, s.options.ReadOnly); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.db.Close())
		}
	}()
	if s.options.ReadOnly {
		err = guard(s.read)
	} else {
		err = guard(s.prepare)
	}
	if err != nil {
		return err
	}
	if err := s.collectTypes(); err != nil {
		return err
	}
	s.codec, err = newCodec()
	return err
}

// checkPath finds what bbolt would report in a way that helps nobody.
func checkPath(path string, readOnly bool) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return errors.New("is a folder; name a file in it")
	case err == nil && !info.Mode().IsRegular():
		return errors.New("is not an ordinary file")
	case err == nil && info.Size() == 0 && readOnly:
		return errors.New("file is empty")
	case err == nil:
		return nil
	case readOnly && errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file")
	case !errors.Is(err, fs.ErrNotExist):
		return reason(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("make its folder: %w; choose another path", reason(err))
	}
	return nil
}

// reason takes the path out of an error of the file system, which the caller
// names already, and says what can be done.
func reason(err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		err = named.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run as a user who may use that place, or choose another path", err)
	}
	return err
}

// openFile keeps the freelist in the file (NoFreelistSync off): without
// it commits are a little smaller, but each start reads the whole file. The
// freelist is an array, which finds the first free pages that are enough: with
// bbolt's hashmap, which takes any, free pages are soon too scattered for
// blocks, and a file under retention grows to twice of what it holds. It is read
// also where nothing is written: storage says how much is free.
func openFile(path string, readOnly bool) (db *bbolt.DB, file *os.File, err error) {
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: lockTimeout, ReadOnly: readOnly, PreLoadFreelist: true, FreelistType: bbolt.FreelistArrayType, InitialMmapSize: mapSize,
			OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err == nil {
			db.AllocSize = growStep
		}
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, ErrInUse
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return nil, nil, fmt.Errorf("not a bbolt file, or damaged: %w", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EROFS):
		return nil, nil, fmt.Errorf("cannot be made there: %w; choose another path (--db or storage.path)", reason(err))
	case err != nil:
		return nil, nil, reason(err)
	}
	return db, file, nil
}

// guard turns a panic into an error: bbolt panics on pages that are damaged,
// and reading beyond the end of a file that was cut off is a fault.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("file is damaged, or this is a bug: %v", r)
		}
	}()
	return do()
}

// prepare checks the file, brings it to the present format and adds what it lacks.
func (s *Store) prepare() error {
	fresh := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			fresh = true
			return nil
		}
		return s.checkFile(tx)
	})
	if err != nil {
		return err
	}
	if !fresh {
		if err := migrations.Apply(s.db); err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		if fresh {
			if err := create(tx, s.now()); err != nil {
				return fmt.Errorf("make a new database: %w", err)
			}
		}
		if err := s.readMeta(tx); err != nil {
			return err
		}
		for _, t := range s.options.Types {
			if err := s.schemas.add(tx, t); err != nil {
				return err
			}
		}
		return removeRoom(tx)
	})
}

// read checks a file that must not be changed.
func (s *Store) read() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		if err := s.checkFile(tx); err != nil {
			return err
		}
		if version := migrations.Read(tx); version != migrations.Version {
			return fmt.Errorf("has format %d, which must be migrated to %d first; run ebpf-server migrate on it", version, migrations.Version)
		}
		return s.readMeta(tx)
	})
}

func (s *Store) checkFile(tx *bbolt.Tx) error {
	info, err := os.Stat(s.options.Path)
	if err != nil {
		return reason(err)
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("file is cut off: it has %d bytes and should have %d", info.Size(), tx.Size())
	}
	return migrations.Check(migrations.Read(tx))
}

func create(tx *bbolt.Tx, now time.Time) error {
	if err := migrations.Write(tx, migrations.Version); err != nil {
		return err
	}
	for _, path := range allBuckets {
		bucket, err := tx.CreateBucketIfNotExists(path[0])
		if err == nil && len(path) > 1 {
			_, err = bucket.CreateBucket(path[1])
		}
		if err != nil {
			return err
		}
	}
	if err := tx.Bucket(bucketMeta).Put(keyFlush, putInt(0)); err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyCreated, putTime(now))
}

// readMeta takes over what the file knows.
func (s *Store) readMeta(tx *bbolt.Tx) (err error) {
	if err := checkBuckets(tx); err != nil {
		return err
	}
	s.pending = newPart(storedFlush(tx)+1, s.now())
	s.schemas, err = readSchemas(tx)
	return err
}

func checkBuckets(tx *bbolt.Tx) error {
	for _, path := range allBuckets {
		bucket := tx.Bucket(path[0])
		if bucket != nil && len(path) > 1 {
			bucket = bucket.Bucket(path[1])
		}
		if bucket == nil {
			return fmt.Errorf("file is damaged: it lacks the bucket %s", path[len(path)-1])
		}
	}
	return nil
}

// collectTypes prefers the program's own declarations to those of the file.
func (s *Store) collectTypes() error {
	for _, t := range s.options.Types {
		s.types[t.Name] = t
	}
	for name, number := range s.schemas.latest {
		if _, ok := s.types[name]; ok {
			continue
		}
		t, err := s.schemas.byNumber[number].declare()
		if err != nil {
			return fmt.Errorf("read schema %d: %w", number, err)
		}
		s.types[name] = t
	}
	for name, t := range s.types {
		s.forms[name] = formOf(t)
		s.spares[name] = newSparesOfType()
	}
	return nil
}
