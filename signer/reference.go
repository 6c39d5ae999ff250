package signer

import "strings"

// Schemes of key and certificate references.
const (
	SchemeFile   = "file"   // a path, with or without "file:"
	SchemePKCS11 = "pkcs11" // an RFC 7512 URI
	SchemeHandle = "handle" // a persistent TPM handle, "handle:0x81000001"
)

// A Reference says where a key or a certificate is: a file's path, an RFC 7512
// URI, a TPM handle. The zero value refers to nothing.
type Reference struct {
	Scheme string
	// Value is the path for SchemeFile, and the whole text, scheme included,
	// for every other.
	Value string
}

// ParseReference reads a reference. It never fails: whatever bears no known
// scheme is a path, so that `C:\key.pem` and "odd:name" stay usable. "file:"
// takes a path ("file:key.pem") or the RFC 8089 form ("file:///etc/key.pem").
func ParseReference(s string) Reference {
	scheme, rest, ok := strings.Cut(s, ":")
	if ok {
		switch strings.ToLower(scheme) {
		case SchemePKCS11, SchemeHandle:
			return Reference{strings.ToLower(scheme), s}
		case SchemeFile:
			if p, ok := strings.CutPrefix(rest, "//localhost/"); ok {
				return Reference{SchemeFile, "/" + p}
			}
			if p, ok := strings.CutPrefix(rest, "///"); ok {
				return Reference{SchemeFile, "/" + p}
			}
			return Reference{SchemeFile, rest}
		}
	}
	if s == "" {
		return Reference{}
	}
	return Reference{SchemeFile, s}
}

// IsZero reports whether r refers to nothing.
func (r Reference) IsZero() bool { return r.Value == "" }

// String returns r as a person would write it. A "pin-value" in a PKCS#11 URI
// is redacted.
func (r Reference) String() string {
	if r.Scheme != SchemePKCS11 {
		return r.Value
	}
	path, query, ok := strings.Cut(r.Value, "?")
	if !ok {
		return r.Value
	}
	attrs := strings.Split(query, "&")
	for i, a := range attrs {
		if name, _, _ := strings.Cut(a, "="); strings.EqualFold(name, "pin-value") {
			attrs[i] = name + "=" + redacted
		}
	}
	return path + "?" + strings.Join(attrs, "&")
}
