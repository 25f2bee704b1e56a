// Package uplot holds uPlot, the library that draws the charts of our pages, as its authors
// published it (npm package uplot 1.6.32). The pages embed it, so that they need no network.
package uplot

import _ "embed"

//go:embed uPlot.iife.min.js
var js string

//go:embed uPlot.min.css
var css string

//go:embed LICENSE
var license string

// JS returns the library as a script. It defines the global uPlot.
func JS() string { return js }

// CSS returns the style that the script needs.
func CSS() string { return css }

// License returns the text that must accompany each copy of the library.
func License() string { return license }
