package tpm

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"unicode/utf8"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/holdfast-iam/holdfast/signer"
)

// PEMType is the label of a TPM key file in PEM.
const PEMType = "TSS2 PRIVATE KEY"

// A KeyFile is a key that only the TPM it belongs to can use: a TPMKey of
// draft-bottomley-tpm2-keys, "ASN.1 Specification for TPM 2.0 Key Files".
type KeyFile struct {
	// Importable says that Private is encrypted to the parent with Secret, as
	// a key that was made elsewhere is. Others were made in the TPM or have
	// been imported: "loadable".
	Importable bool

	// EmptyAuth says whether the key's authorization value is empty. Writers
	// that leave it out mean that it is not; nil is for those.
	EmptyAuth *bool

	// Policy and AuthPolicy are the DER SEQUENCEs below the tags [1] and [3],
	// nil if absent. Package policy reads them.
	Policy, AuthPolicy []byte

	// Secret is the encrypted seed of an importable key, a
	// TPM2B_ENCRYPTED_SECRET without its size.
	Secret []byte

	// Description is for people; it is read and not written.
	Description string

	// RSAParent says that a primary key as the parent is RSA-2048 and not ECC
	// P-256.
	RSAParent bool

	// Parent is a persistent handle, or a hierarchy whose primary storage key
	// is the parent.
	Parent tpm2.TPMHandle

	// Public is the public area.
	Public tpm2.TPMTPublic

	// Private is the contents of the TPM2B_PRIVATE.
	Private []byte

	public crypto.PublicKey
	name   tpm2.TPM2BName
}

// Object identifiers of the TCG for key files.
var (
	oidLoadable   = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}
	oidImportable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 4}
	oidSealed     = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 5}
)

// ParseKeyFile reads a key file, in PEM or DER. Its errors wrap
// signer.ErrMalformed, or signer.ErrUnsupportedKey for one that is fine and
// holds something else than a signing key this package can use.
func ParseKeyFile(data []byte) (*KeyFile, error) {
	if b, _ := pem.Decode(data); b != nil {
		if b.Type == "TSS2 KEY BLOB" {
			return nil, signer.WithHint(fmt.Errorf("TPM key: %w: the format of early openssl engines, from before the standard", signer.ErrUnsupportedKey),
				"make a new key: holdfast key create")
		}
		if b.Type != PEMType {
			return nil, fmt.Errorf("TPM key: %w: a PEM block of another type", signer.ErrMalformed)
		}
		data = b.Bytes
	}
	f, err := parseTPMKey(data)
	if err != nil {
		return nil, fmt.Errorf("TPM key: %w", err)
	}
	return f, nil
}

// PublicKey returns the public key: an *ecdsa.PublicKey or *rsa.PublicKey.
func (f *KeyFile) PublicKey() crypto.PublicKey { return f.public }

// Name returns the key's Name in the TPM.
func (f *KeyFile) Name() tpm2.TPM2BName { return f.name }

func tag(n uint8) der.Tag { return der.Tag(n).ContextSpecific().Constructed() }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", signer.ErrMalformed, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", signer.ErrUnsupportedKey, fmt.Sprintf(format, args...))
}

func parseTPMKey(data []byte) (*KeyFile, error) {
	s := cryptobyte.String(data)
	var in cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1ObjectIdentifier(&oid) {
		return nil, malformed("not a TPM key file")
	}
	if rest := bytes.TrimRight(s, "\x00\r\n"); len(rest) != 0 {
		return nil, malformed("%d bytes too many after the key", len(rest))
	}
	f := &KeyFile{}
	switch {
	case oid.Equal(oidLoadable):
	case oid.Equal(oidImportable):
		f.Importable = true
	case oid.Equal(oidSealed):
		return nil, unsupported("sealed data, which cannot sign")
	default:
		return nil, unsupported("type %v is not one of a key file", oid)
	}
	if err := f.parseTagged(&in); err != nil {
		return nil, err
	}
	if err := f.parseRest(&in); err != nil {
		return nil, err
	}
	return f, f.check()
}

// parseTagged reads the optional fields [0] to [5], and passes over any that
// are newer than this program.
func (f *KeyFile) parseTagged(in *cryptobyte.String) error {
	last := -1
	for !in.PeekASN1Tag(der.INTEGER) {
		var body cryptobyte.String
		var t der.Tag
		if !in.ReadAnyASN1(&body, &t) {
			return malformed("a field is cut short, or there is no parent")
		}
		n := int(t & 0x1f)
		if t&0xe0 != 0xa0 {
			return malformed("a field of an unexpected type %#x", uint8(t))
		}
		if n <= last {
			return malformed("field [%d] is there twice, or not in its turn", n)
		}
		last = n
		if err := f.parseField(n, body); err != nil {
			return err
		}
	}
	return nil
}

func (f *KeyFile) parseField(n int, body cryptobyte.String) error {
	ok := true
	var v cryptobyte.String
	switch n {
	case 0:
		b, good := readBool(&body)
		f.EmptyAuth, ok = &b, good
	case 1:
		ok = body.ReadASN1Element(&v, der.SEQUENCE)
		f.Policy = v
	case 2:
		ok = body.ReadASN1(&v, der.OCTET_STRING)
		// The TPM2B with its size, as everyone writes it.
		c := cursor{v, ok}
		f.Secret = bytes.Clone(c.sized())
		ok = c.ok && len(c.b) == 0
	case 3:
		ok = body.ReadASN1Element(&v, der.SEQUENCE)
		f.AuthPolicy = v
	case 4:
		ok = body.ReadASN1(&v, der.UTF8String) && utf8.Valid(v)
		f.Description = string(v)
	case 5:
		f.RSAParent, ok = readBool(&body)
	default:
		return nil
	}
	if !ok || !body.Empty() {
		return malformed("field [%d]", n)
	}
	return nil
}

// readBool takes any byte but 0 for true, as BER does: some writers use 1.
func readBool(s *cryptobyte.String) (value, ok bool) {
	var b cryptobyte.String
	if !s.ReadASN1(&b, der.BOOLEAN) || len(b) != 1 {
		return false, false
	}
	return b[0] != 0, true
}

func (f *KeyFile) parseRest(in *cryptobyte.String) error {
	var parent, public, private cryptobyte.String
	if !in.ReadASN1(&parent, der.INTEGER) || !in.ReadASN1(&public, der.OCTET_STRING) || !in.ReadASN1(&private, der.OCTET_STRING) {
		return malformed("parent, public or private part is missing")
	}
	if !in.Empty() {
		return malformed("%d bytes too many after the private part", len(*in))
	}
	var err error
	if f.Parent, err = readParent(parent); err != nil {
		return err
	}
	c := cursor{public, true}
	area := c.sized()
	if !c.ok || len(c.b) != 0 {
		return malformed("the public part's size is not its length")
	}
	p, err := parsePublic(area)
	if err != nil {
		return err
	}
	f.Public, f.name.Buffer = *p, nameOf(area)
	c = cursor{private, true}
	f.Private = bytes.Clone(c.sized())
	if !c.ok || len(c.b) != 0 || len(f.Private) == 0 {
		return malformed("the private part's size is not its length")
	}
	return nil
}

// readParent reads a handle. Handles with the top bit set are written as
// negative numbers by some, with a zero byte before them by others; 0 is the
// owner.
func readParent(b []byte) (tpm2.TPMHandle, error) {
	for len(b) > 4 && (b[0] == 0 || b[0] == 0xff && b[1]&0x80 != 0) {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 4 {
		return 0, malformed("the parent is no handle")
	}
	var h uint32
	for _, x := range b {
		h = h<<8 | uint32(x)
	}
	parent := tpm2.TPMHandle(h)
	switch {
	case parent == 0:
		return tpm2.TPMRHOwner, nil
	case parent == tpm2.TPMRHOwner, parent == tpm2.TPMRHEndorsement, parent == tpm2.TPMRHPlatform, parent == tpm2.TPMRHNull, isPersistent(parent):
		return parent, nil
	}
	return 0, malformed("the parent %#x is neither a hierarchy nor a persistent key", h)
}

func isPersistent(h tpm2.TPMHandle) bool { return tpm2.TPMHT(h>>24) == tpm2.TPMHTPersistent }

// check finds what cannot be right, and what cannot sign.
func (f *KeyFile) check() error {
	var err error
	if f.public, err = publicKey(&f.Public); err != nil {
		return err
	}
	if len(f.name.Buffer) == 0 {
		return unsupported("name algorithm %#x", uint16(f.Public.NameAlg))
	}
	if f.Importable && len(f.Secret) == 0 {
		return malformed("an importable key without its secret")
	}
	return checkUsable(&f.Public)
}
