// Package report writes what a load test found, for people and for other programs: a page of HTML
// that needs no network ([Page]), a table of the time series ([CSV]), and a log of histograms
// ([Log]).
//
// A Page is generic: a title, figures, charts and tables. Each command has a function that fills it
// from its result, such as [OfRun].
package report
