// Package engine depends, through codec, on what it must never reach.
package engine

import _ "bad/codec"
