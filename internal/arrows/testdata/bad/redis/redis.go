// Package redis stands for a dependency that engine may not have.
package redis
