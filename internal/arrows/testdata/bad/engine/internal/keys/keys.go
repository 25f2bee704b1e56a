// Package keys is an inner room that imports another one.
package keys

import _ "bad/engine/internal/locks"
