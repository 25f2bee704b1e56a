package engine

import (
	"context"
	"errors"
)

// LogLevels are the levels of a log: one for everything, and others for components. Any goroutine
// may call the methods, and none waits.
type LogLevels interface {
	String() string // as a text, such as "info,links=debug"
	// Set replaces the levels. If the text is wrong, nothing changes.
	Set(text string) error
}

// LogLevelInfo says which lines of its log a node writes.
type LogLevelInfo struct {
	Node   string `json:"node"`
	Levels string `json:"levels"` // such as "info,links=debug"
}

// logLevelArgs are the arguments of an order to set levels.
type logLevelArgs struct {
	Levels string `json:"levels"`
}

// LogLevels asks all nodes for the levels of their logs.
func (o *Operator) LogLevels(ctx context.Context) (Asked[LogLevelInfo], error) {
	return askAll[LogLevelInfo](ctx, o.eng, askLogLevel, struct{}{})
}

// SetLogLevels sets the levels of a node's log, or of this one's if node is empty. They stay until
// somebody sets others, or the process ends.
func (o *Operator) SetLogLevels(ctx context.Context, node, levels string) error {
	_, err := o.order(ctx, orderLogLevel, node, logLevelArgs{levels})
	return err
}

var errNoLevels = errors.New("the program of this node has no levels that can be set")

// logLevels returns the levels of this node's log.
func (a respondent) logLevels(context.Context, struct{}) ([]LogLevelInfo, error) {
	levels := a.eng.cfg.LogLevels
	if levels == nil {
		return nil, errNoLevels
	}
	return []LogLevelInfo{{Node: a.eng.cfg.NodeID, Levels: levels.String()}}, nil
}

// setLogLevels sets the levels of this node's log.
func (a respondent) setLogLevels(_ context.Context, args logLevelArgs) ([]obeyed, error) {
	levels := a.eng.cfg.LogLevels
	if levels == nil {
		return nil, errNoLevels
	}
	before := levels.String()
	if err := levels.Set(args.Levels); err != nil {
		return nil, err
	}
	a.eng.cfg.Logger.Info("an operator has set the levels of this log", "levels", args.Levels, "before", before)
	return []obeyed{{}}, nil
}
