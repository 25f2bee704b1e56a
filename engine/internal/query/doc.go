// Package query asks the nodes of a cluster about themselves, and answers what they ask. It knows
// links, deadlines and limits. It does not know what the questions mean.
//
// A question is a verb with arguments in JSON. The answer of a node is a list of items, each a line
// of JSON. It crosses a link in parts, as frames of the kinds query and query_part.
package query
