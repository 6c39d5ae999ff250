package wire

import (
	"crypto"
	"crypto/x509"

	"github.com/holdfast-iam/holdfast/pkcs11"
	"github.com/holdfast-iam/holdfast/signer"
)

// Hello opens a connection. Its first field keeps its place in every version.
type Hello struct {
	Version uint32
	Module  string // path
}

// Welcome answers Hello once the module is loaded.
type Welcome struct {
	Version uint32
	Release string // of holdfast-pkcs11
	Library pkcs11.Library
}

// Options are those of package cryptoki that are plain values.
type Options struct {
	PIN                bool // there is someone to Ask
	AllowFinalTry      bool
	MaxSessions        int
	AlwaysAuthenticate bool
	Replace            bool
}

// Open asks for a key, and for the certificates that belong to it as well.
type Open struct {
	URI          *pkcs11.URI
	Public       crypto.PublicKey // which of several keys; may be nil
	Certificates bool
	Options      Options
}

// Opened answers Open and Generate.
type Opened struct {
	Key          uint32
	Public       crypto.PublicKey
	URI          *pkcs11.URI
	Info         pkcs11.KeyInfo
	Certificates []pkcs11.Certificate
	// CertificatesError is why there are none, though the key is open.
	CertificatesError *Error
}

// KeyRef names an open key.
type KeyRef struct{ Key uint32 }

// Sign asks for a signature over Data: a digest, or with Message a message.
type Sign struct {
	Key     uint32
	Message bool
	Hash    uint32 // crypto.Hash
	PSS     bool
	Salt    int // rsa.PSSOptions.SaltLength
	Data    []byte
}

// Signature answers Sign.
type Signature struct{ Bytes []byte }

// Query asks for what a URI matches.
type Query struct {
	URI     *pkcs11.URI
	Options Options
}

// Generate asks for a new key.
type Generate struct {
	URI       *pkcs11.URI
	Algorithm string
	Options   Options
}

// Import asks to store a certificate beside its key.
type Import struct {
	URI     *pkcs11.URI
	DER     []byte
	Options Options
}

// Tokens, Certificates and Contents answer the requests of those names.
type (
	Tokens       struct{ Tokens []pkcs11.Token }
	Certificates struct{ Certificates []pkcs11.Certificate }
	Contents     struct{ Contents []pkcs11.Contents }
)

// Ask asks for the user's PIN of a token: to log in, or, with a Key, for a
// signature of a key that always authenticates.
type Ask struct {
	Token pkcs11.Token
	Key   *pkcs11.URI
}

// Answer brings the PIN, or says that there is none.
type Answer struct {
	PIN  signer.Secret
	Fail *Error
}

func (m *Hello) code(c *Codec) { c.u32(&m.Version); c.string(&m.Module) }

func (m *Welcome) code(c *Codec) {
	c.u32(&m.Version)
	c.string(&m.Release)
	l := &m.Library
	for _, s := range []*string{&l.Path, &l.Manufacturer, &l.Description, &l.Version, &l.Cryptoki} {
		c.string(s)
	}
}

func (m *Options) code(c *Codec) {
	c.bool(&m.PIN)
	c.bool(&m.AllowFinalTry)
	c.integer(&m.MaxSessions)
	c.bool(&m.AlwaysAuthenticate)
	c.bool(&m.Replace)
}

func (m *Open) code(c *Codec) {
	c.uri(&m.URI)
	c.public(&m.Public)
	c.bool(&m.Certificates)
	m.Options.code(c)
}

func (m *Opened) code(c *Codec) {
	c.u32(&m.Key)
	c.public(&m.Public)
	c.uri(&m.URI)
	c.key(&m.Info)
	slice(c, &m.Certificates, c.certificate)
	c.error(&m.CertificatesError)
}

func (m *KeyRef) code(c *Codec) { c.u32(&m.Key) }

func (m *Sign) code(c *Codec) {
	c.u32(&m.Key)
	c.bool(&m.Message)
	c.u32(&m.Hash)
	c.bool(&m.PSS)
	c.integer(&m.Salt)
	c.bytes(&m.Data)
}

func (m *Signature) code(c *Codec) { c.bytes(&m.Bytes) }

func (m *Query) code(c *Codec) { c.uri(&m.URI); m.Options.code(c) }

func (m *Generate) code(c *Codec) { c.uri(&m.URI); c.string(&m.Algorithm); m.Options.code(c) }

func (m *Import) code(c *Codec) { c.uri(&m.URI); c.bytes(&m.DER); m.Options.code(c) }

func (m *Tokens) code(c *Codec) { slice(c, &m.Tokens, c.token) }

func (m *Certificates) code(c *Codec) { slice(c, &m.Certificates, c.certificate) }

func (m *Contents) code(c *Codec) {
	slice(c, &m.Contents, func(v *pkcs11.Contents) {
		c.token(&v.Token)
		slice(c, &v.Keys, c.key)
		slice(c, &v.Certificates, c.certificate)
		c.bool(&v.LoggedIn)
		e := NewError(v.Err)
		if c.error(&e); !c.writing && e != nil {
			v.Err = e
		}
	})
}

func (m *Ask) code(c *Codec) { c.token(&m.Token); c.uri(&m.Key) }

func (m *Answer) code(c *Codec) { c.secret(&m.PIN); c.error(&m.Fail) }

func (c *Codec) token(t *pkcs11.Token) {
	for _, s := range []*string{&t.Label, &t.Manufacturer, &t.Model, &t.Serial, &t.SlotDescription, &t.SlotManufacturer} {
		c.string(s)
	}
	for _, b := range []*bool{&t.LoginRequired, &t.ProtectedAuthenticationPath, &t.UserPINInitialized, &t.UserPINCountLow,
		&t.UserPINFinalTry, &t.UserPINLocked, &t.UserPINToBeChanged, &t.WriteProtected} {
		c.bool(b)
	}
	c.u64(&t.SlotID)
	c.u64(&t.Sessions)
	c.u64(&t.MaxSessions)
}

func (c *Codec) certificate(v *pkcs11.Certificate) {
	c.bytes(&v.DER)
	c.string(&v.Label)
	c.bytes(&v.ID)
	c.token(&v.Token)
	if c.bool(&v.Issuer); !c.writing && c.err == nil {
		v.X509, _ = x509.ParseCertificate(v.DER) // nil if it does not parse
	}
}

func (c *Codec) key(v *pkcs11.KeyInfo) {
	c.string(&v.Label)
	c.bytes(&v.ID)
	c.token(&v.Token)
	c.string(&v.Algorithm)
	c.public(&v.Public)
	c.bool(&v.PublicOnly)
	c.bool(&v.AlwaysAuthenticate)
	c.maybe(&v.Extractable)
	c.maybe(&v.CanSign)
	c.integer(&v.Certificate)
}

// public carries a public key, or none, as a SubjectPublicKeyInfo.
func (c *Codec) public(v *crypto.PublicKey) {
	var der []byte
	if c.writing && *v != nil {
		der, _ = signer.MarshalPublicKey(*v) // a kind without a form of its own travels as none
	}
	if c.bytes(&der); c.writing || c.err != nil {
		return
	}
	*v = nil
	if len(der) == 0 {
		return
	}
	pub, err := signer.ParsePublicKey(der)
	if err != nil {
		c.fail("not a public key")
		return
	}
	*v = pub
}
