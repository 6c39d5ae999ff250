//go:build race

package hosted_test

func init() { buildFlags = append(buildFlags, "-race") }
