// Package judge decides whether what a load test found is good enough: by thresholds that the user
// sets ([Condition]), and by a comparison of two runs ([Compare]).
//
// The package is pure. All functions may be called on any goroutine.
package judge
