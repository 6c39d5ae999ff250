package evidence

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm/policy"
)

// A Key is the signing key, loaded or persistent.
type Key struct {
	Handle tpm2.TPMHandle

	// Auth is a session that proves the key's auth value. Nil means an empty
	// one. It remains the caller's. A key that is bound to a policy is
	// certified with its auth value as well, whatever the policy says, unless
	// it has adminWithPolicy. Package tpm's Key.WithAdmin has handle and session.
	Auth tpm2.Session
}

// Options are for the device. The zero value is right for most.
type Options struct {
	// Nonce is the CA's, at most 64 bytes; it makes the evidence fresh.
	Nonce []byte

	// Endorsement is a session that proves the endorsement hierarchy's auth
	// value; it is used several times and remains the caller's. Nil means an
	// empty one, which is usual.
	Endorsement tpm2.Session

	// EKCertificate, in DER, stands for the one the TPM should hold.
	EKCertificate []byte

	// PCRs are quoted unless it is empty.
	PCRs policy.Selection
}

func (o Options) hierarchy() tpm2.AuthHandle {
	auth := o.Endorsement
	if auth == nil {
		auth = tpm2.PasswordAuth(nil)
	}
	return tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: auth}
}

// Collect makes the evidence that csr's key is the TPM's. It refuses a key
// that no CA would take ([ErrKeyAttributes], [signer.ErrKeyMismatch]). A TPM
// without an EK certificate is no error here: the bundle then has none. At most
// two objects and no session are held in the TPM besides key, and they are
// flushed before Collect returns.
func Collect(ctx context.Context, tpm transport.TPM, key Key, csr []byte, o Options) (*Bundle, error) {
	request, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	pub, _, err := readPublic(tpm, key.Handle)
	if err != nil {
		return nil, fmt.Errorf("evidence: the signing key: %w", err)
	}
	if err := checkKey(pub, request); err != nil {
		return nil, signer.WithHint(err, "make the key in the TPM, with `holdfast key create`, and the request with it")
	}
	return collect(ctx, tpm, key, csr, o)
}

func collect(ctx context.Context, tpm transport.TPM, key Key, csr []byte, o Options) (*Bundle, error) {
	if len(o.Nonce) > maxNonce {
		return nil, fmt.Errorf("evidence: a nonce of %d bytes, where %d are the most", len(o.Nonce), maxNonce)
	}
	b := &Bundle{Version: Version, Nonce: o.Nonce}
	d := device{ctx, tpm, o}
	var err error
	// A wrong password shows before the EK is made, which may take seconds.
	if err := d.statements(b, key, Qualifying(o.Nonce, csr)); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if b.EK, err = d.endorsement(); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if b.TPM, err = d.properties(); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return b, nil
}

type device struct {
	ctx context.Context
	tpm transport.TPM
	Options
}

// statements has the AK certify the key and quote the PCRs.
func (d *device) statements(b *Bundle, key Key, qualifying []byte) (err error) {
	pub, name, err := readPublic(d.tpm, key.Handle)
	if err != nil {
		return fmt.Errorf("the signing key: %w", err)
	}
	ak, akPub, err := d.createAK()
	if err != nil {
		return err
	}
	defer func() { err = flushed(d.tpm, ak.Handle, err) }()
	b.AK.Public = tpm2.Marshal(akPub)

	auth := key.Auth
	if auth == nil {
		auth = tpm2.PasswordAuth(nil)
	}
	if err := d.ctx.Err(); err != nil {
		return err
	}
	certified, err := tpm2.Certify{
		ObjectHandle:   tpm2.AuthHandle{Handle: key.Handle, Name: tpm2.TPM2BName{Buffer: name}, Auth: auth},
		SignHandle:     ak,
		QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth) {
		return fmt.Errorf("certifying the signing key: %w: %w", signer.ErrPINIncorrect, err)
	}
	if errors.Is(err, tpm2.TPMRCLockout) {
		return fmt.Errorf("certifying the signing key: %w: %w", signer.ErrPINLocked, err)
	}
	if err != nil {
		return fmt.Errorf("certifying the signing key: %w", err)
	}
	b.Key = Certified{tpm2.Marshal(pub), certified.CertifyInfo.Bytes(), tpm2.Marshal(certified.Signature)}
	if len(d.PCRs) == 0 {
		return nil
	}
	b.Quote, err = d.quote(ak, qualifying)
	return err
}

// quoteTries bounds how often a quote is repeated because a PCR was extended
// between it and the values' reading.
const quoteTries = 3

func (d *device) quote(ak tpm2.AuthHandle, qualifying []byte) (*Quote, error) {
	for range quoteTries {
		values, err := policy.Read(d.ctx, d.tpm, d.PCRs)
		if err != nil {
			return nil, err
		}
		rsp, err := tpm2.Quote{
			SignHandle:     ak,
			QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      d.PCRs.TPM(),
		}.Execute(d.tpm)
		if err != nil {
			return nil, fmt.Errorf("quoting PCRs %s: %w", d.PCRs, err)
		}
		q := &Quote{policy.Snapshot{Values: values}, d.PCRs.String(), rsp.Quoted.Bytes(), tpm2.Marshal(rsp.Signature)}
		attest, err := rsp.Quoted.Contents()
		if err != nil {
			return nil, fmt.Errorf("quoting PCRs %s: %w", d.PCRs, err)
		}
		if _, err := checkQuoted(q, attest); err == nil {
			return q, nil
		}
	}
	return nil, fmt.Errorf("quoting PCRs %s: they kept changing", d.PCRs)
}

// createAK makes the AK, whose handle the caller flushes.
func (d *device) createAK() (tpm2.AuthHandle, tpm2.TPMTPublic, error) {
	h, pub, name, err := d.createPrimary(akTemplate())
	if err != nil {
		return tpm2.AuthHandle{}, pub, fmt.Errorf("making the attestation key: %w", err)
	}
	return tpm2.AuthHandle{Handle: h, Name: name, Auth: tpm2.PasswordAuth(nil)}, pub, nil
}

// createPrimary makes a key of the endorsement hierarchy.
func (d *device) createPrimary(template tpm2.TPMTPublic) (h tpm2.TPMHandle, pub tpm2.TPMTPublic, name tpm2.TPM2BName, err error) {
	if err := d.ctx.Err(); err != nil {
		return 0, pub, name, err
	}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: d.hierarchy(), InPublic: tpm2.New2B(template)}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth) {
		return 0, pub, name, fmt.Errorf("%w: %w: %w", ErrEndorsementAuth, signer.ErrPINIncorrect, err)
	}
	if err != nil {
		return 0, pub, name, err
	}
	p, err := rsp.OutPublic.Contents()
	if err != nil {
		return 0, pub, name, flushed(d.tpm, rsp.ObjectHandle, err)
	}
	return rsp.ObjectHandle, *p, rsp.Name, nil
}

func readPublic(tpm transport.TPM, h tpm2.TPMHandle) (pub tpm2.TPMTPublic, name []byte, err error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(tpm)
	if err != nil {
		return pub, nil, err
	}
	p, err := rsp.OutPublic.Contents()
	if err != nil {
		return pub, nil, err
	}
	return *p, rsp.Name.Buffer, nil
}

// flushed flushes h on the way out and returns the error to end with.
func flushed(tpm transport.TPM, h tpm2.TPMHandle, err error) error {
	if _, e := (tpm2.FlushContext{FlushHandle: h}).Execute(tpm); e != nil && err == nil {
		return fmt.Errorf("TPM2_FlushContext: %w", e)
	}
	return err
}

func parseRequest(csr []byte) (*x509.CertificateRequest, error) {
	if len(csr) > maxFile {
		return nil, fmt.Errorf("%w: larger than 1 MiB", ErrRequest)
	}
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	if !bounded(request.PublicKey) {
		return nil, fmt.Errorf("%w: an RSA key of more than %d bits", ErrRequest, maxRSABits)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRequest, err)
	}
	return request, nil
}

func (d *device) properties() (p Properties, err error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTFamilyIndicator), PropertyCount: 16}.Execute(d.tpm)
	if err != nil {
		return p, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return p, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	v := map[tpm2.TPMPT]uint32{}
	for _, t := range list.TPMProperty {
		v[t.Property] = t.Value
	}
	text := func(pts ...tpm2.TPMPT) string {
		var b []byte
		for _, pt := range pts {
			b = append(b, byte(v[pt]>>24), byte(v[pt]>>16), byte(v[pt]>>8), byte(v[pt]))
		}
		b = bytes.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, b)
		return strings.TrimSpace(string(b))
	}
	p.Manufacturer = text(tpm2.TPMPTManufacturer)
	p.Vendor = text(tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4)
	p.Firmware = fmt.Sprintf("%08x.%08x", v[tpm2.TPMPTFirmwareVersion1], v[tpm2.TPMPTFirmwareVersion2])
	p.Revision = fmt.Sprintf("%d.%02d", v[tpm2.TPMPTRevision]/100, v[tpm2.TPMPTRevision]%100)
	return p, nil
}
