package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"

	"github.com/holdfast-iam/holdfast/signer"
)

// A selector picks certificates from an operating system's store, in the
// syntax of aws_signing_helper:
//
//	Key=x509Subject,Value=CN=edge Key=x509Issuer,Value=… Key=x509Serial,Value=<hex>
//
// or file://PATH of a JSON array of {"Key": …, "Value": …}.
type selector struct {
	subject string
	issuer  string
	serial  *big.Int
}

var errSelector = errors.New("malformed certificate selector")

func parseSelector(text string) (*selector, error) {
	var pairs []selectorPair
	var err error
	if path, ok := strings.CutPrefix(text, "file://"); ok {
		pairs, err = readSelectorFile(path)
	} else {
		pairs, err = splitSelector(text)
	}
	if err != nil {
		return nil, signer.WithHint(err, `it looks like "Key=x509Subject,Value=CN=edge Key=x509Serial,Value=1A2B", with the keys x509Subject, x509Issuer and x509Serial`)
	}
	s := &selector{}
	seen := map[string]bool{}
	for _, p := range pairs {
		if seen[p.Key] {
			return nil, fmt.Errorf("%w: %s is given twice", errSelector, p.Key)
		}
		seen[p.Key] = true
		switch p.Key {
		case "x509Subject":
			s.subject = p.Value
		case "x509Issuer":
			s.issuer = p.Value
		case "x509Serial":
			n, ok := new(big.Int).SetString(p.Value, 16)
			if !ok || n.Sign() < 0 || strings.ContainsAny(p.Value, "+_") {
				return nil, fmt.Errorf("%w: x509Serial %q is not hexadecimal", errSelector, p.Value)
			}
			s.serial = n
		default:
			return nil, signer.WithHint(fmt.Errorf("%w: unknown key %q", errSelector, p.Key), "the keys are x509Subject, x509Issuer and x509Serial")
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%w: it selects nothing", errSelector)
	}
	return s, nil
}

type selectorPair struct{ Key, Value string }

// splitSelector cuts at each " Key=", so that values may hold spaces, commas
// and equal signs.
func splitSelector(text string) ([]selectorPair, error) {
	var pairs []selectorPair
	rest := strings.TrimSpace(text)
	for rest != "" {
		body, ok := strings.CutPrefix(rest, "Key=")
		if !ok {
			return nil, fmt.Errorf("%w: it does not begin with Key= at %q", errSelector, head(rest))
		}
		body, rest, _ = cutNextKey(body)
		key, value, ok := strings.Cut(body, ",Value=")
		if !ok {
			return nil, fmt.Errorf("%w: %q has no ,Value=", errSelector, head(body))
		}
		pairs = append(pairs, selectorPair{strings.TrimSpace(key), strings.TrimSpace(value)})
	}
	return pairs, nil
}

func cutNextKey(s string) (before, after string, found bool) {
	if i := strings.Index(s, " Key="); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func head(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

func readSelectorFile(path string) ([]selectorPair, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseSelectorJSON(text)
}

func parseSelectorJSON(text []byte) ([]selectorPair, error) {
	var pairs []selectorPair
	if err := json.Unmarshal(text, &pairs); err != nil {
		return nil, fmt.Errorf("%w: %v", errSelector, err)
	}
	return pairs, nil
}
