package software

// ToBER rewrites the first layers of DER with indefinite lengths and strings in
// pieces, down to the contents of the authenticated safe.
func ToBER(data []byte) []byte {
	var walk func(out, data []byte) []byte
	walk = func(out, data []byte) []byte {
		for len(data) > 0 {
			whole, rest, ok := element(data)
			if !ok {
				panic("not DER")
			}
			_, length, content, _ := berHeader(whole)
			content = content[:length]
			switch tag := whole[0]; {
			case tag == 0x30 || tag == 0xa0 || tag == 0x31:
				out = append(walk(append(out, tag, 0x80), content), 0, 0)
			case (tag == 0x04 || tag == 0x80) && len(content) > 40: // in two pieces, the first of 17 bytes
				out = append(out, tag|0x20, 0x80)
				out = appendDER(out, 0x04, content[:17])
				out = append(appendDER(out, 0x04, content[17:]), 0, 0)
			case tag == 0x02 && len(content) < 0x80: // a length in more bytes than needed
				out = append(append(out, tag, 0x82, 0, byte(len(content))), content...)
			default:
				out = append(out, whole...)
			}
			data = rest
		}
		return out
	}
	return walk(nil, data)
}
