// Package soak makes a load test of hours, and says whether memory, files, goroutines or latency
// grow.
//
// A [Recorder] writes what happens to a file while it happens, one line of JSON for each interval.
// So a kill of the tool, or of its machine, loses at most one interval. [Read] reads such a file,
// whether or not the run has ended, and [Judge] adds the trends.
package soak
