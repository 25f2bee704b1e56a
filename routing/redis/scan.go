package redis

import (
	"context"

	goredis "github.com/redis/go-redis/v9"
)

const (
	scanWidth = 64   // the maximum number of buckets in one round trip
	scanCount = 1000 // about how many bindings of a large bucket are read at once
	// if a round trip returns so many bindings, the next one asks for fewer buckets
	scanFound = 4096
	scanTries = 3 // how often Redis may fail to answer for a bucket before the walk skips it
	// maxLeftOut is the maximum number of walks that skip a bucket because it could not be read.
	maxLeftOut = 16
)

// scanner is the position of a walk through all buckets. A round trip is bounded, whatever the
// buckets hold: it reads several small buckets, or a part of a large one. A bucket that cannot be
// read delays no other. The next walk tries it again, and later walks less and less often.
type scanner struct {
	buckets int // of short IDs; there are as many of long ones
	begin   int // the walk begins there, and ends before it

	at      spot
	width   int             // buckets in the next round trip
	tries   int             // how often in a row this spot could not be read
	walks   int             // the number of complete walks
	leftOut map[int]leftOut // buckets that could not be read
	logged  int             // 1 + the latest walk in which that was logged
}

// spot is the progress of a walk: the number of complete buckets, and the part of the next.
type spot struct {
	done   int
	cursor uint64
}

type leftOut struct {
	times int // how often in a row it could not be read
	until int // the walk that tries it again
}

func newScanner(buckets, begin int) scanner {
	return scanner{buckets: buckets, begin: begin, width: scanWidth, leftOut: make(map[int]leftOut)}
}

func (s *scanner) total() int { return 2 * s.buckets }

// number converts the count of buckets before a bucket to the bucket's number. The buckets of long
// IDs come after the others.
func (s *scanner) number(done int) int { return (s.begin + done) % s.total() }

func (s *scanner) bucket(number int) bucket {
	return bucket{number: number % s.buckets, long: number >= s.buckets}
}

func (s *scanner) over() bool { return s.at.done >= s.total() }

// restart begins the next walk.
func (s *scanner) restart() {
	s.at, s.tries = spot{}, 0
	s.walks++
}

// goPast skips a bucket until a later walk. It returns how many times in a row that has happened.
func (s *scanner) goPast(done int) int {
	s.at = spot{done: done + 1}
	n := s.number(done)
	out := s.leftOut[n]
	out.times++
	out.until = s.walks + min(1<<min(out.times-1, 10), maxLeftOut)
	s.leftOut[n] = out
	return out.times
}

// scan reads the next buckets, or the next part of one. It returns the bindings in them.
func (s *sweep) scan(ctx context.Context) (found []swap, err error) {
	sc := &s.scanner
	end := min(sc.at.done+sc.width, sc.total())
	var wanted []int // for each, how many buckets come before it
	var commands []goredis.Cmder
	for done, cursor := sc.at.done, sc.at.cursor; done < end; done, cursor = done+1, 0 {
		if n := sc.number(done); sc.leftOut[n].until <= sc.walks {
			wanted = append(wanted, done)
			commands = append(commands, goredis.NewScanCmd(ctx, nil, "hscan", s.registry.keys.bucket(sc.bucket(n)), cursor, "count", scanCount))
		}
	}
	if len(wanted) > 0 {
		marker := s.registry.readMarker(ctx, sc.bucket(sc.number(wanted[0])).group())
		v, _ := s.registry.losses.snapshot()
		if err := s.registry.inBackground(ctx, len(wanted), append(commands, marker)...); err != nil {
			return nil, s.scanFailed(wanted[0], err)
		}
		if !s.registry.certain(v, sc.bucket(sc.number(wanted[0])).group(), marker) {
			return nil, s.registry.unavailable(errRebuilding)
		}
	}
	for k, done := range wanted {
		c := commands[k].(*goredis.ScanCmd)
		switch err := c.Err(); {
		case noAnswer(err) && k == 0:
			return nil, s.scanFailed(done, err)
		case noAnswer(err): // the next round trip begins with it
			sc.at, sc.width = spot{done: done}, 1
			return found, nil
		case !succeeded(c):
			s.leaveOut(done, err)
			continue
		}
		page, cursor := c.Val()
		found = appendPage(found, sc.bucket(sc.number(done)), page)
		sc.tries = 0
		if sc.at = (spot{done, cursor}); cursor != 0 {
			sc.width = 1
			return found, nil
		}
		delete(sc.leftOut, sc.number(done))
	}
	sc.at = spot{done: end}
	if sc.width = min(2*sc.width, scanWidth); len(found) > scanFound {
		sc.width = max(1, sc.width/4)
	}
	return found, nil
}

// appendPage appends the bindings in a reply of HSCAN: fields and values in turn.
func appendPage(to []swap, b bucket, page []string) []swap {
	for i := 0; i+1 < len(page); i += 2 {
		if binding, ok := decodeBinding(page[i+1]); ok { // the field "" is none
			to = append(to, swap{bucket: b, id: page[i], binding: binding})
		}
	}
	return to
}

// scanFailed reduces the next round trip, and makes the walk skip a bucket that fails on its own.
func (s *sweep) scanFailed(done int, err error) error {
	sc := &s.scanner
	if sc.width > 1 {
		sc.width = 1
		return err
	}
	if sc.tries++; !noAnswer(err) || sc.tries >= scanTries {
		s.leaveOut(done, err)
	}
	return err
}

func (s *sweep) leaveOut(done int, err error) {
	sc := &s.scanner
	if sc.goPast(done) == 1 && sc.logged != sc.walks+1 { // log once in a walk, not for every bucket
		sc.logged = sc.walks + 1
		s.registry.config.Logger.Warn("the sweep skips what it cannot read, and will retry",
			"url", s.registry.config.URL, "key", s.registry.keys.bucket(sc.bucket(sc.number(done))), "error", causeOf(err))
	}
}

// inPlace splits bindings into those in the bucket of their ID and those in another bucket. Nobody
// can find the latter, because the key of the hash has changed.
func (s *sweep) inPlace(found []swap) (placed, misplaced []swap) {
	v, _ := s.registry.losses.snapshot()
	placed = found[:0]
	for _, f := range found {
		if s.registry.keys.bucketOf(v.key, f.id) == f.bucket {
			placed = append(placed, f)
		} else {
			misplaced = append(misplaced, f)
		}
	}
	return placed, misplaced
}

// dead returns the bindings whose session has ended.
func (s *sweep) dead(bindings []swap) (found []swap) {
	for _, b := range bindings {
		if s.known[b.binding.Session].state == dead {
			found = append(found, b)
		}
	}
	return found
}
