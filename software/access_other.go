//go:build !unix

package software

import (
	"fmt"
	"io/fs"
)

func unreadable(path string, err error) error {
	return fmt.Errorf("%s: %w", oneLine(path), cause(err))
}

// exposed finds nothing: the mode of a file says nothing where access is a
// matter of ACLs.
func exposed(string, fs.FileInfo) string { return "" }
