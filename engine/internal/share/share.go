// Package share divides a common resource among many connections.
//
// The first connections must not take everything (S32). So a connection may hold a part of what is
// free at the moment, as switches share their buffers among ports. If many connections take all
// they can get, the others get about as much as each of them. A connection that is alone gets most
// of the resource.
package share

// Reserve is the part of the whole that is reserved for connections that hold little.
const Reserve = 4

const (
	// few is the part of the whole that a connection gets out of the reserve. left is the part of
	// what is free that it gets when the reserve is nearly used up.
	few  = 1 << 13
	left = 1 << 10
)

// Of returns how much one connection may hold while all together hold that much. most is the whole,
// and part is the part of what is free beyond the reserve that one connection may have. Every
// connection may always hold a few.
func Of(most, held int, part uint) int {
	all, free := uint(most), uint(max(0, most-held))
	share := max(1, min(all/few, free/left))
	if kept := all / Reserve; free > kept {
		share = max(share, (free-kept)/part)
	}
	return int(share)
}
