package policy

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxSteps bounds what a key file may make the TPM do.
const maxSteps = 64

func tag(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }

// Parse reads the policy of a TSS2 key file: the SEQUENCE OF TPMPolicy below
// its tag [1] and the SEQUENCE OF TPMAuthPolicy below [3], each nil if absent.
// hash is the key's name algorithm. The error wraps [signer.ErrMalformed], or
// [ErrUnsupported] and names the command that is not supported.
func Parse(hash tpm2.TPMIAlgHash, policy, authPolicy []byte) (*Policy, error) {
	c, err := newCalculator(hash)
	if err != nil {
		return nil, err
	}
	p := &Policy{Hash: hash}
	if policy != nil {
		in := cryptobyte.String(policy)
		if p.Steps, err = parseSteps(&in, c.hash.Size()); err != nil {
			return nil, err
		}
		if !in.Empty() {
			return nil, malformed("data after the policy's sequence")
		}
	}
	if authPolicy == nil {
		return p, nil
	}
	in := cryptobyte.String(authPolicy)
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !in.Empty() {
		return nil, malformed("authPolicy is no sequence")
	}
	for !seq.Empty() {
		if len(p.Alternatives) == maxSteps {
			return nil, malformed("more than %d alternatives", maxSteps)
		}
		a, err := parseAlternative(&seq, c.hash.Size())
		if err != nil {
			return nil, fmt.Errorf("alternative %d: %w", len(p.Alternatives)+1, err)
		}
		p.Alternatives = append(p.Alternatives, a)
	}
	return p, nil
}

func parseAlternative(in *cryptobyte.String, size int) (a Alternative, err error) {
	var seq, name, text, steps cryptobyte.String
	var named bool
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadOptionalASN1(&name, &named, tag(0)) {
		return a, malformed("it is no TPMAuthPolicy")
	}
	if named {
		if !name.ReadASN1(&text, asn1.UTF8String) || !name.Empty() || !utf8.Valid(text) {
			return a, malformed("its name is no UTF8String")
		}
		a.Name = string(text)
	}
	if !seq.ReadASN1(&steps, tag(1)) || !seq.Empty() {
		return a, malformed("it has no policy, or more than that")
	}
	if a.Steps, err = parseSteps(&steps, size); err != nil {
		return a, err
	}
	if !steps.Empty() || len(a.Steps) == 0 {
		return a, malformed("its policy is empty, or data follows it")
	}
	return a, nil
}

func parseSteps(in *cryptobyte.String, size int) ([]Step, error) {
	var seq cryptobyte.String
	if !in.ReadASN1(&seq, asn1.SEQUENCE) {
		return nil, malformed("it is no sequence")
	}
	var steps []Step
	for !seq.Empty() {
		n := len(steps) + 1
		if n > maxSteps {
			return nil, malformed("more than %d steps", maxSteps)
		}
		var one, c, b, body cryptobyte.String
		var cc int64
		if !seq.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1(&c, tag(0)) || !c.ReadASN1Integer(&cc) || !c.Empty() ||
			!one.ReadASN1(&b, tag(1)) || !b.ReadASN1(&body, asn1.OCTET_STRING) || !b.Empty() || !one.Empty() || cc < 0 || cc > 0xffffffff {
			return nil, malformed("step %d is no TPMPolicy", n)
		}
		s, err := parseStep(tpm2.TPMCC(cc), body, size)
		if err != nil {
			return nil, fmt.Errorf("policy step %d, %s: %w", n, commandName(tpm2.TPMCC(cc)), err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// parseStep reads a step's body. size is of the policy's hash.
func parseStep(cc tpm2.TPMCC, body []byte, size int) (Step, error) {
	in := reader{b: body}
	var s Step
	switch cc {
	case tpm2.TPMCCPolicyPCR:
		return parsePCR(body, size)
	case tpm2.TPMCCPolicyAuthValue, tpm2.TPMCCPolicyPassword:
		s = AuthValue{Password: cc == tpm2.TPMCCPolicyPassword}
	case tpm2.TPMCCPolicySecret:
		s = Secret{Object: tpm2.TPMHandle(in.uint32()), Name: in.sized(), Ref: in.sized()}
	case tpm2.TPMCCPolicyAuthorize:
		return parseAuthorize(body)
	case tpm2.TPMCCPolicyOR:
		var or Or
		n := in.uint32()
		if n < 2 || n > MaxBranches {
			return nil, malformed("it joins %d policies", n)
		}
		for range n {
			or.Digests = append(or.Digests, in.sized())
		}
		s = or
	case tpm2.TPMCCPolicyCommandCode:
		s = CommandCode{tpm2.TPMCC(in.uint32())}
	default:
		return nil, fmt.Errorf("%w: holdfast does not execute this command", ErrUnsupported)
	}
	if in.bad || len(in.b) != 0 {
		return nil, malformed("its body is too short or too long")
	}
	return s, nil
}

// parsePCR reads both forms: TPML_PCR_SELECTION and the bare digest, as policy
// hashes have it, and TPM2B_DIGEST and TPML_PCR_SELECTION, the command's body.
// The first begins with two zero bytes and a count that is not zero, which the
// second cannot.
func parsePCR(body []byte, size int) (Step, error) {
	var list, digest []byte
	if len(body) < 4 {
		return nil, malformed("its body is too short")
	}
	if n := binary.BigEndian.Uint32(body); n > 0 && n <= 16 {
		if len(body) < size {
			return nil, malformed("its body is too short")
		}
		list, digest = body[:len(body)-size], body[len(body)-size:]
	} else {
		in := reader{b: body}
		digest = in.sized()
		list = in.b
		if in.bad {
			return nil, malformed("its digest is cut short")
		}
	}
	l, err := tpm2.Unmarshal[tpm2.TPMLPCRSelection](list)
	if err != nil || string(tpm2.Marshal(*l)) != string(list) {
		return nil, malformed("its PCR selection")
	}
	sel, err := SelectionOf(*l)
	if err != nil {
		return nil, err
	}
	if len(digest) == 0 {
		return nil, fmt.Errorf("%w: the file does not say which values PCRs %s have to have", ErrUnsupported, sel)
	}
	if len(digest) != size {
		return nil, malformed("its digest has %d bytes, the policy's hash %d", len(digest), size)
	}
	if string(tpm2.Marshal(sel.TPM())) != string(list) {
		return nil, fmt.Errorf("%w: an unusual PCR selection", ErrUnsupported)
	}
	return PCR{sel, digest}, nil
}

func parseAuthorize(body []byte) (Step, error) {
	in := reader{b: body}
	public, ref := in.sized(), in.sized()
	if in.bad {
		return nil, malformed("its body is too short")
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil || string(tpm2.Marshal(*pub)) != string(public) {
		return nil, malformed("its public key")
	}
	s := Authorize{Public: *pub, Ref: ref}
	if _, err := s.Name(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if len(in.b) == 2 && binary.BigEndian.Uint16(in.b) == uint16(tpm2.TPMAlgNull) {
		return s, nil
	}
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](in.b)
	if err != nil || string(tpm2.Marshal(*sig)) != string(in.b) {
		return nil, malformed("its signature")
	}
	s.Signature = sig
	return s, nil
}

// A reader takes big-endian integers and TPM2B off a buffer.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, 4)
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *reader) sized() []byte {
	n := binary.BigEndian.Uint16(r.take(2))
	if r.bad {
		return nil
	}
	return r.take(int(n))
}
