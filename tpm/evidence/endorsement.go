package evidence

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/holdfast-iam/holdfast/signer"
)

// endorsement finds the EK and its certificates: the first kind that the TPM
// holds a certificate of, or the first at all.
func (d *device) endorsement() (e Endorsement, err error) {
	kinds := ekKinds()
	fitting := kinds[:1]
	if d.EKCertificate != nil {
		cert, err := parseEKCertificate(d.EKCertificate)
		if err != nil {
			return e, fmt.Errorf("the EK certificate given: %w", err)
		}
		fitting = slices.DeleteFunc(kinds, func(k ekKind) bool { return !k.suits(cert.key) })
		e.Certificate = cert.Raw
	} else {
		for i, k := range kinds {
			data, err := d.readNV(k.index)
			if err != nil {
				return e, signer.WithHint(fmt.Errorf("reading the %s EK's certificate at %#x: %w", k.name, uint32(k.index), err),
					"read it with the TPM's own tools, and give it")
			}
			if len(data) > 0 {
				fitting = kinds[i : i+1]
				if e.Certificate, _, err = cutDER(data); err != nil {
					return e, fmt.Errorf("the %s EK's certificate at %#x: %w", k.name, uint32(k.index), err)
				}
				break
			}
		}
	}
	if e.Chain, err = d.chain(); err != nil {
		return e, err
	}
	err = fmt.Errorf("%w: no endorsement key has the size of its key", ErrEKMismatch)
	var pub tpm2.TPMTPublic
	for _, k := range fitting {
		if pub, err = d.ekPublic(k, e.Certificate); !errors.Is(err, ErrEKMismatch) && !lacks(err) {
			break
		}
	}
	if err != nil {
		return e, err
	}
	e.Public = tpm2.Marshal(pub)
	return e, nil
}

// lacks reports whether the TPM does not make keys of a kind.
func lacks(err error) bool {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCCurve, tpm2.TPMRCValue, tpm2.TPMRCKeySize, tpm2.TPMRCHash, tpm2.TPMRCSymmetric, tpm2.TPMRCAsymmetric, tpm2.TPMRCType, tpm2.TPMRCSize} {
		if errors.Is(err, rc) {
			return true
		}
	}
	return false
}

// ekPublic takes the public area of the persistent EK, if it is the one that
// the certificate is for, and else makes the EK, which costs seconds for RSA.
func (d *device) ekPublic(k ekKind, cert []byte) (tpm2.TPMTPublic, error) {
	if pub, _, err := readPublic(d.tpm, k.persistent); err == nil && fits(pub, k.template) && certifies(cert, pub) {
		return pub, nil
	}
	h, pub, _, err := d.createPrimary(k.template)
	if err != nil {
		return pub, fmt.Errorf("making the %s EK: %w", k.name, err)
	}
	if err := flushed(d.tpm, h, nil); err != nil {
		return pub, err
	}
	if cert != nil && !certifies(cert, pub) {
		return pub, signer.WithHint(fmt.Errorf("the %s EK: %w", k.name, ErrEKMismatch),
			"the TPM's endorsement seed was changed since its maker certified it, or the certificate is another TPM's")
	}
	return pub, nil
}

// loadEK returns the EK of that Name: the persistent one, or one made anew,
// which the caller has to flush.
func (d *device) loadEK(name []byte) (h tpm2.NamedHandle, pub tpm2.TPMTPublic, transient bool, err error) {
	for _, k := range ekKinds() {
		if pub, got, err := readPublic(d.tpm, k.persistent); err == nil && string(got) == string(name) {
			return tpm2.NamedHandle{Handle: k.persistent, Name: tpm2.TPM2BName{Buffer: got}}, pub, false, nil
		}
	}
	for _, k := range ekKinds() {
		if !bytes.HasPrefix(name, binary.BigEndian.AppendUint16(nil, uint16(k.template.NameAlg))) {
			continue
		}
		h, pub, got, err := d.createPrimary(k.template)
		if lacks(err) {
			continue
		}
		if err != nil {
			return tpm2.NamedHandle{}, pub, false, fmt.Errorf("making the %s EK: %w", k.name, err)
		}
		if string(got.Buffer) == string(name) {
			return tpm2.NamedHandle{Handle: h, Name: got}, pub, true, nil
		}
		if err := flushed(d.tpm, h, nil); err != nil {
			return tpm2.NamedHandle{}, pub, false, err
		}
	}
	return tpm2.NamedHandle{}, pub, false, fmt.Errorf("%w: no endorsement key of this TPM has the name %x", ErrOtherTPM, name)
}

// chain reads the CA certificates that some TPMs hold above the EK's.
func (d *device) chain() ([][]byte, error) {
	var chain [][]byte
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: firstChainIndex, PropertyCount: maxChain}.Execute(d.tpm)
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	list, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	for _, h := range list.Handle {
		if h < firstChainIndex || h > lastChainIndex {
			continue
		}
		data, err := d.readNV(h)
		if rc := tpm2.TPMRC(0); errors.As(err, &rc) || errors.Is(err, errNotReadable) {
			continue // not for us to read; the CA may have the certificates
		}
		if err != nil {
			return nil, fmt.Errorf("reading the EK's chain at %#x: %w", uint32(h), err)
		}
		// One index may hold several certificates, and a certificate may go on
		// in the next; the latter is not seen in the field and passed over.
		for len(data) > 0 && len(chain) < maxChain {
			cert, rest, err := cutDER(data)
			if err != nil {
				break
			}
			if _, err := x509.ParseCertificate(cert); err == nil {
				chain = append(chain, cert)
			}
			data = rest
		}
	}
	return chain, nil
}

// chunk is what every TPM's NV_BUFFER_MAX allows.
const chunk = 512

var errNotReadable = errors.New("it is not for everybody to read, nor for the owner")

// readNV returns an index's contents, or nothing if there is no such index.
func (d *device) readNV(h tpm2.TPMHandle) ([]byte, error) {
	if err := d.ctx.Err(); err != nil {
		return nil, err
	}
	rsp, err := tpm2.NVReadPublic{NVIndex: h}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_NV_ReadPublic: %w", err)
	}
	pub, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("TPM2_NV_ReadPublic: %w", err)
	}
	// By the index's own, empty, auth value, or by the owner's. Of an index
	// under dictionary attack protection the former could cost a try.
	auth := tpm2.AuthHandle{Handle: h, Name: rsp.NVName, Auth: tpm2.PasswordAuth(nil)}
	switch a := pub.Attributes; {
	case a.AuthRead && a.NoDA:
	case a.OwnerRead:
		auth = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	default:
		return nil, errNotReadable
	}
	var data []byte
	for len(data) < int(pub.DataSize) {
		got, err := tpm2.NVRead{
			AuthHandle: auth, NVIndex: tpm2.NamedHandle{Handle: h, Name: rsp.NVName},
			Size: uint16(min(chunk, int(pub.DataSize)-len(data))), Offset: uint16(len(data)),
		}.Execute(d.tpm)
		if errors.Is(err, tpm2.TPMRCNVUninitialized) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("TPM2_NV_Read: %w", err)
		}
		if len(got.Data.Buffer) == 0 {
			return nil, errors.New("TPM2_NV_Read: an empty answer")
		}
		data = append(data, got.Data.Buffer...)
	}
	return data, nil
}

// cutDER cuts a certificate from what follows it, padding or another one.
func cutDER(data []byte) (cert, rest []byte, err error) {
	var v asn1.RawValue
	rest, err = asn1.Unmarshal(data, &v)
	if err != nil || v.Tag != asn1.TagSequence {
		return nil, nil, malformed("certificate")
	}
	return v.FullBytes, rest, nil
}
