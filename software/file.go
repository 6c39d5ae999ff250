package software

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/holdfast-iam/holdfast/signer"
)

// maxSize is more than any file of keys and certificates has.
const maxSize = 1 << 20

// readFile reads a file, or a pipe, to its end.
func readFile(path string) ([]byte, fs.FileInfo, error) {
	name := oneLine(path)
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, nil, unreadable(path, err)
		}
		return nil, nil, fmt.Errorf("%s: %w", name, cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, cause(err))
	}
	if info.IsDir() {
		return nil, nil, fmt.Errorf("%s: is a directory, where a file with a key or certificates is needed", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, cause(err))
	}
	if len(data) > maxSize {
		clear(data)
		return nil, nil, fmt.Errorf("%s: %w: larger than 1 MiB, so no file of keys and certificates", name, signer.ErrMalformed)
	}
	return data, info, nil
}

// cause drops the path from an error, for the path is named already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
