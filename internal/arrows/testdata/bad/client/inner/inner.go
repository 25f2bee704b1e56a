// Package inner is part of the room client.
package inner

import _ "example.org/go-redis"
