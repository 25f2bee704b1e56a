// Package share divides what many connections have in common.
//
// Whoever comes first must not take it from the others (S32). So a connection may hold a part of
// what is free at the moment, as switches share their buffers among ports. Then many that take all
// they can get leave the others about as much as each of them has, and one that is alone gets most
// of it.
package share

// Reserve is the part of the whole that is kept for connections that hold little.
const Reserve = 4

const (
	// few is the part of the whole that a connection gets out of the reserve, and left the part of
	// what is free that it gets when the reserve is nearly used up.
	few  = 1 << 13
	left = 1 << 10
)

// Of returns how much one connection may hold while all together hold that much. most is how much
// there is, and part the part of what is free beyond the reserve that one connection may have. A
// connection may always have a few.
func Of(most, held int, part uint) int {
	all, free := uint(most), uint(max(0, most-held))
	share := max(1, min(all/few, free/left))
	if kept := all / Reserve; free > kept {
		share = max(share, (free-kept)/part)
	}
	return int(share)
}
