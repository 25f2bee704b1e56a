// Package client imports its own inner package, which is fine, and engine, which is not.
package client

import (
	_ "bad/client/inner"
	_ "bad/engine"
)
