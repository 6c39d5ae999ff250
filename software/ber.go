package software

import (
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// maxDepth bounds the nesting of BER.
const maxDepth = 32

// berToDER rewrites what DER forbids and PKCS#12 writers still use: indefinite
// lengths, lengths in more bytes than needed and OCTET STRINGs in pieces (X.690,
// section 8). It fails on anything that is cut short. The bytes after the first
// element are returned too.
func berToDER(data []byte) (out, rest []byte, ok bool) {
	return berElement(nil, data, 0)
}

// berElement appends the DER of data's first element to out.
func berElement(out, data []byte, depth int) (_, rest []byte, ok bool) {
	tag, length, data, ok := berHeader(data)
	if !ok || depth > maxDepth {
		return nil, nil, false
	}
	if tag&0x20 == 0 {
		if length < 0 || length > len(data) {
			return nil, nil, false
		}
		return appendDER(out, tag, data[:length]), data[length:], true
	}
	rest = nil
	if length >= 0 {
		if length > len(data) {
			return nil, nil, false
		}
		data, rest = data[:length], data[length:]
	}
	var content []byte
	for length < 0 || len(data) > 0 {
		if length < 0 && len(data) >= 2 && data[0] == 0 && data[1] == 0 {
			rest = data[2:]
			break
		}
		if content, data, ok = berElement(content, data, depth+1); !ok {
			return nil, nil, false
		}
	}
	if tag == 0x24 {
		joined, ok := joinOctets(content)
		if !ok {
			return nil, nil, false
		}
		return appendDER(out, 0x04, joined), rest, true
	}
	return appendDER(out, tag, content), rest, true
}

// berHeader reads a tag of one byte and a length, which is -1 for an indefinite
// one.
func berHeader(data []byte) (tag byte, length int, rest []byte, ok bool) {
	if len(data) < 2 || data[0]&0x1f == 0x1f {
		return 0, 0, nil, false
	}
	tag, first, data := data[0], data[1], data[2:]
	switch {
	case first < 0x80:
		return tag, int(first), data, true
	case first == 0x80:
		return tag, -1, data, tag&0x20 != 0
	}
	n := int(first - 0x80)
	if n > len(data) {
		return 0, 0, nil, false
	}
	for _, b := range data[:n] {
		if length = length<<8 | int(b); length > maxSize {
			return 0, 0, nil, false
		}
	}
	return tag, length, data[n:], true
}

func appendDER(out []byte, tag byte, content []byte) []byte {
	n := len(content)
	switch {
	case n < 0x80:
		out = append(out, tag, byte(n))
	case n < 0x100:
		out = append(out, tag, 0x81, byte(n))
	case n < 0x10000:
		out = append(out, tag, 0x82, byte(n>>8), byte(n))
	default:
		out = append(out, tag, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, content...)
}

// joinOctets joins the pieces of an OCTET STRING.
func joinOctets(pieces cryptobyte.String) ([]byte, bool) {
	var out []byte
	for !pieces.Empty() {
		var piece cryptobyte.String
		if !pieces.ReadASN1(&piece, der.OCTET_STRING) {
			return nil, false
		}
		out = append(out, piece...)
	}
	return out, true
}
