// Package small is named in the row of the inner rooms of engine, which is fine.
package small
