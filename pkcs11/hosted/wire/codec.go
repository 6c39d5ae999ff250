package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// A Message is the body of a frame. Its one method both writes and reads it,
// so that the two cannot differ.
type Message interface{ code(c *Codec) }

// A Codec writes the fields it is shown, or reads into them.
type Codec struct {
	b       []byte
	writing bool
	err     error
}

// Decode reads all of body into m. What m then holds shares nothing with body.
// Errors wrap ErrFrame.
func Decode(body []byte, m Message) error {
	c := Codec{b: body}
	m.code(&c)
	if c.err == nil && len(c.b) != 0 {
		c.fail("%d bytes too many", len(c.b))
	}
	return c.err
}

func (c *Codec) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrFrame, fmt.Sprintf(format, args...))
	}
	c.b = nil
}

// take returns the next n bytes, or nil.
func (c *Codec) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail("cut short")
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *Codec) u64(v *uint64) {
	if c.writing {
		c.b = binary.AppendUvarint(c.b, *v)
		return
	}
	n, size := binary.Uvarint(c.b)
	if size <= 0 {
		c.fail("not a number")
		return
	}
	c.b = c.b[size:]
	*v = n
}

func (c *Codec) u32(v *uint32) {
	n := uint64(*v)
	c.u64(&n)
	if n > 1<<32-1 {
		c.fail("number too large")
		n = 0
	}
	*v = uint32(n)
}

// integer carries an int, which may be negative, in 32 bits.
func (c *Codec) integer(v *int) {
	n := uint32(int32(*v))
	c.u32(&n)
	*v = int(int32(n))
}

func (c *Codec) bool(v *bool) {
	var n uint64
	if *v {
		n = 1
	}
	c.u64(&n)
	if n > 1 {
		c.fail("neither true nor false")
	}
	*v = n == 1
}

// maybe carries a *bool: absent, false or true.
func (c *Codec) maybe(v **bool) {
	there := *v != nil
	if c.bool(&there); !there || c.err != nil {
		*v = nil
		return
	}
	if *v == nil {
		*v = new(bool)
	}
	c.bool(*v)
}

func (c *Codec) bytes(v *[]byte) {
	n := uint64(len(*v))
	c.u64(&n)
	if c.writing {
		c.b = append(c.b, *v...)
		return
	}
	*v = append([]byte(nil), c.take(n)...)
}

func (c *Codec) string(v *string) {
	n := uint64(len(*v))
	c.u64(&n)
	if c.writing {
		c.b = append(c.b, *v...)
		return
	}
	*v = string(c.take(n))
}

func (c *Codec) secret(v *signer.Secret) {
	n := uint64(len(v.Reveal()))
	c.u64(&n)
	if c.writing {
		c.b = append(c.b, v.Reveal()...)
		return
	}
	*v = signer.NewSecret(c.take(n))
}

// uri carries a URI without its PIN: that travels in Answer only.
func (c *Codec) uri(v **pkcs11.URI) {
	var s string
	if c.writing && *v != nil {
		s = (*v).Without(pkcs11.AttrPINValue, pkcs11.AttrPINSource).Exact()
	}
	if c.string(&s); c.writing || c.err != nil {
		return
	}
	if s == "" {
		*v = nil
		return
	}
	u, err := pkcs11.Parse(s)
	if err != nil {
		c.fail("not a URI")
		return
	}
	*v = u
}

// slice carries a slice of which each element takes at least one byte.
func slice[T any](c *Codec, v *[]T, each func(*T)) {
	n := uint64(len(*v))
	c.u64(&n)
	if !c.writing {
		if n > uint64(len(c.b)) {
			c.fail("cut short")
			return
		}
		*v = nil
	}
	for i := range n {
		if c.err != nil {
			return
		}
		if !c.writing {
			*v = append(*v, *new(T))
		}
		each(&(*v)[i])
	}
}
