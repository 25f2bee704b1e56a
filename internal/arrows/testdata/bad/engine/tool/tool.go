// Package tool may import any room, and yet no inner one.
package tool

import _ "bad/engine/internal/keys"
