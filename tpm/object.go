package tpm

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// An object is a key in the TPM that others hang from or are salted to.
type object struct {
	handle    tpm2.TPMHandle
	name      tpm2.TPM2BName
	public    *tpm2.TPMTPublic // nil for a primary key until it is asked for: few uses need it
	area      []byte           // what public is parsed from
	hierarchy tpm2.TPMHandle   // of a primary key
	template  *tpm2.TPMTPublic // of a primary key
}

// parse reads the public area of a primary key.
func (ob *object) parse() (err error) {
	if ob.public == nil {
		if ob.public, err = parsePublic(ob.area); err != nil {
			return fmt.Errorf("the primary key that the TPM made: %w", err)
		}
	}
	return nil
}

// label is for people, and what the object's pin is kept under.
func (ob *object) label() string {
	if ob.template == nil {
		return fmt.Sprintf("persistent key %08x", uint32(ob.handle))
	}
	sum := sha256.Sum256(tpm2.Marshal(*ob.template))
	return fmt.Sprintf("primary key %x of %08x", sum[:4], uint32(ob.hierarchy))
}

// changes reports whether the object is another after every reset.
func (ob *object) changes() bool { return ob.hierarchy == tpm2.TPMRHNull }

// A saltKey is what a session is salted to.
type saltKey = object

func (ob *object) isStorage() bool {
	if ob.template != nil {
		return true // no other primary keys are made
	}
	a := ob.public.ObjectAttributes
	return a.Restricted && a.Decrypt && (ob.public.Type == tpm2.TPMAlgECC || ob.public.Type == tpm2.TPMAlgRSA)
}

// srkHandle is where the TCG's provisioning guidance puts the storage root key.
const srkHandle tpm2.TPMHandle = 0x81000001

// storageAttributes are those of the TCG's storage root keys.
var storageAttributes = tpm2.TPMAObject{
	FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
	Restricted: true, Decrypt: true,
}

func aes128cfb() tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

// eccStorage is the template H-2 of the TCG EK Credential Profile for a
// storage key, its unique field empty.
func eccStorage() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: storageAttributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aes128cfb(), CurveID: tpm2.TPMECCNistP256}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// rsaStorage is H-1, the same in RSA.
func rsaStorage() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: storageAttributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aes128cfb(), KeyBits: 2048}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{}),
	}
}

// parentTemplates returns the templates that a hierarchy as a key's parent may
// stand for. The first is what the key file format says. The others are what
// programs make that leave the choice to tpm2_createprimary; they are tried
// when the key does not hang from the first.
func parentTemplates(rsa bool) []tpm2.TPMTPublic {
	first, tools, padded := eccStorage(), eccStorage(), eccStorage()
	padded.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
	})
	if rsa {
		first, tools, padded = rsaStorage(), rsaStorage(), rsaStorage()
		padded.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)})
	}
	tools.ObjectAttributes.NoDA = false
	return []tpm2.TPMTPublic{first, tools, padded}
}

// createPrimary makes a primary key and returns it.
func (o *op) createPrimary(hierarchy tpm2.TPMHandle, auth tpm2.Session, template tpm2.TPMTPublic) (*object, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: auth},
		InPublic:      tpm2.New2B(template),
	}.Execute(o)
	if err != nil {
		return nil, err
	}
	ob := &object{handle: rsp.ObjectHandle, area: rsp.OutPublic.Bytes(), hierarchy: hierarchy, template: &template}
	ob.name.Buffer = nameOf(ob.area)
	return ob, nil
}

// persistent reads the public area of a persistent key.
func (o *op) persistent(h tpm2.TPMHandle) (*object, error) {
	name, area, err := o.public(h)
	if err != nil {
		if rc := codeOf(err); rc == tpm2.TPMRCHandle || rc == tpm2.TPMRCValue {
			return nil, signer.WithHint(fmt.Errorf("handle %#x: %w in the TPM", uint32(h), signer.ErrKeyNotFound),
				"list what it has: holdfast list --tpm")
		}
		return nil, err
	}
	ob := &object{handle: h, name: tpm2.TPM2BName{Buffer: name}, area: area}
	if ob.public, err = parsePublic(area); err != nil {
		return nil, fmt.Errorf("handle %#x: %w", uint32(h), err)
	}
	return ob, nil
}

// hmacSession returns the Device's HMAC session, salted and encrypted. It is
// started at its first use, salted to near if that is loaded and can be.
func (o *op) hmacSession(near *object) (*session, error) {
	d := o.d
	if d.session != nil && d.session.bad {
		if err := o.flush(d.session.handle); err != nil {
			return nil, err
		}
	}
	if d.session != nil {
		return d.session, nil
	}
	s, err := o.saltedSession(tpm2.TPMSEHMAC, sessionHash, near)
	if err != nil {
		return nil, err
	}
	d.live.keep(s.handle, true)
	d.session = s
	return s, nil
}

func (o *op) saltedSession(kind tpm2.TPMSE, hash tpm2.TPMIAlgHash, near *object) (*session, error) {
	salt := near
	if salt == nil || !salt.isStorage() {
		var err error
		if salt, err = o.saltKey(); err != nil {
			return nil, err
		}
		if isTransient(salt.handle) {
			defer func() { _ = o.flush(salt.handle) }()
		}
	}
	if err := salt.parse(); err != nil {
		return nil, o.d.errorf("%w", err)
	}
	if !salt.changes() {
		if err := o.d.pins.Check(o.d.id, salt.label(), salt.name.Buffer); err != nil {
			return nil, err
		}
	}
	return o.startSession(kind, hash, salt)
}

// saltKey makes or finds a key that sessions can be salted to: the owner's
// primary storage key; if the owner has an authorization value, the persistent
// one; if there is none, a key of the null hierarchy, which keeps a listener
// out, but not something that answers in the TPM's place.
func (o *op) saltKey() (*saltKey, error) {
	ob, err := o.createPrimary(tpm2.TPMRHOwner, emptyAuth(), eccStorage())
	if err == nil || !authRefused(err) && codeOf(err) != tpm2.TPMRCHierarchy {
		return ob, o.d.wrapf(err, "making a key to encrypt to")
	}
	srk, err := o.persistent(srkHandle)
	if err == nil && srk.isStorage() {
		return srk, nil
	}
	if err != nil && !errors.Is(err, signer.ErrKeyNotFound) {
		return nil, err
	}
	ob, err = o.createPrimary(tpm2.TPMRHNull, emptyAuth(), eccStorage())
	if err != nil {
		return nil, o.d.wrapf(err, "making a key to encrypt to")
	}
	return ob, nil
}
