// Package engine depends, through codec, on what it must never reach, and on an inner room that it has
// no arrow to.
package engine

import (
	_ "bad/codec"
	_ "bad/engine/internal/keys"
)
