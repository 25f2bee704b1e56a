package main

import (
	"bytes"
	"context"
	"os"
)

// credentialsFrom returns a function that reads the file before each login. So a new token can be
// put into it at any time. Without a file, it returns nil.
func credentialsFrom(file string) func(context.Context) ([]byte, error) {
	if file == "" {
		return nil
	}
	return func(context.Context) ([]byte, error) {
		text, err := os.ReadFile(file)
		return bytes.TrimSpace(text), err
	}
}
