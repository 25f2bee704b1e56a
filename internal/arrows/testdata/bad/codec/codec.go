// Package codec imports a room it may not import.
package codec

import _ "bad/client/inner"
