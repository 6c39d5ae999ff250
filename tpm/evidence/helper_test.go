package evidence_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	return path
}

// A localCA is swtpm_localca's, which certifies the EKs that swtpm_setup makes.
type localCA struct{ dir string }

func newLocalCA(t *testing.T) *localCA {
	t.Helper()
	tool(t, "swtpm_localca", "swtpm-tools")
	ca := &localCA{t.TempDir()}
	for name, text := range map[string]string{
		"setup.conf": "create_certs_tool = " + tool(t, "swtpm_localca", "swtpm-tools") + "\ncreate_certs_tool_config = " + ca.dir +
			"/localca.conf\ncreate_certs_tool_options = " + ca.dir + "/localca.options\nactive_pcr_banks = sha256\n",
		"localca.conf": "statedir = " + ca.dir + "\nsigningkey = " + ca.dir + "/signkey.pem\nissuercert = " + ca.dir +
			"/issuercert.pem\ncertserial = " + ca.dir + "/certserial\n",
		"localca.options": "--platform-manufacturer holdfast\n--platform-version 1\n--platform-model lab\n",
	} {
		if err := os.WriteFile(filepath.Join(ca.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca
}

func (ca *localCA) certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(ca.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s is no PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// options trust the CA.
func (ca *localCA) options(t *testing.T) evidence.VerifyOptions {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate(t, "swtpm-localca-rootca-cert.pem"))
	return evidence.VerifyOptions{EKRoots: roots, EKIntermediates: []*x509.Certificate{ca.certificate(t, "issuercert.pem")}}
}

// newTPM has swtpm_setup make a TPM with an EK certificate, and starts it.
func (ca *localCA) newTPM(t *testing.T) transport.TPM {
	t.Helper()
	dir, err := os.MkdirTemp("", "swtpm") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	setup := exec.Command(tool(t, "swtpm_setup", "swtpm-tools"), "--tpm2", "--tpmstate", dir, "--create-ek-cert", "--config", ca.dir+"/setup.conf")
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(tool(t, "swtpm", "swtpm"), "socket", "--tpm2", "--server", "type=unixio,path="+socket,
		"--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 200 {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			tpm := swtpm(socket)
			checkLeaks(t, tpm)
			return tpm
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("swtpm did not start")
	return nil
}

// swtpm is the socket of one.
type swtpm string

func (s swtpm) Send(command []byte) ([]byte, error) {
	conn, err := net.Dial("unix", string(s))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	header := make([]byte, 10)
	if _, err := io.ReadFull(conn, header); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(header[2:])-10)
	_, err = io.ReadFull(conn, rest)
	return append(header, rest...), err
}

// checkLeaks asserts, when the test ends, that the TPM holds nothing.
func checkLeaks(t *testing.T, tpm transport.TPM) {
	t.Cleanup(func() {
		for what, first := range map[string]uint32{"objects": 0x80000000, "sessions": 0x02000000, "saved sessions": 0x03000000} {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 32}.Execute(tpm)
			if err != nil {
				t.Error(err)
				continue
			}
			if list, err := rsp.CapabilityData.Data.Handles(); err != nil || len(list.Handle) != 0 {
				t.Errorf("%s left in the TPM: %v, %v", what, list, err)
			}
		}
	})
}

func flush(t *testing.T, tpm transport.TPM, h tpm2.TPMHandle) {
	t.Helper()
	if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(tpm); err != nil {
		t.Error(err)
	}
}

// A tpmKey signs in the TPM, loaded until unload.
type tpmKey struct {
	t    *testing.T
	tpm  transport.TPM
	key  tpm2.NamedHandle
	auth string
	pub  crypto.PublicKey
}

func (k *tpmKey) Public() crypto.PublicKey { return k.pub }

func (k *tpmKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k.signWith(tpm2.PasswordAuth([]byte(k.auth)), digest)
}

func (k *tpmKey) signWith(session tpm2.Session, digest []byte) ([]byte, error) {
	rsp, err := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: k.key.Handle, Name: k.key.Name, Auth: session},
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(k.tpm)
	if err != nil {
		return nil, err
	}
	sig, err := rsp.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)})
}

func (k *tpmKey) unload() { flush(k.t, k.tpm, k.key.Handle) }

func (k *tpmKey) evidence() evidence.Key {
	return evidence.Key{Handle: k.key.Handle, Auth: tpm2.PasswordAuth([]byte(k.auth))}
}

func signing() tpm2.TPMAObject {
	return tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true}
}

func template(a tpm2.TPMAObject) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: a,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
}

func createSRK(t *testing.T, tpm transport.TPM) *tpm2.CreatePrimaryResponse {
	t.Helper()
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return srk
}

// load loads what Create or Import returned.
func load(t *testing.T, tpm transport.TPM, srk *tpm2.CreatePrimaryResponse, pub tpm2.TPM2BPublic, priv tpm2.TPM2BPrivate, auth string) *tpmKey {
	t.Helper()
	loaded, err := tpm2.Load{ParentHandle: tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name}, InPrivate: priv, InPublic: pub}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return &tpmKey{t, tpm, tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, auth, public(t, pub)}
}

func public(t *testing.T, pub tpm2.TPM2BPublic) crypto.PublicKey {
	t.Helper()
	contents, err := pub.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*contents)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(t *testing.T, tpm transport.TPM, a tpm2.TPMAObject, auth string) *tpmKey {
	t.Helper()
	return newKeyOf(t, tpm, template(a), auth)
}

func newKeyOf(t *testing.T, tpm transport.TPM, pub tpm2.TPMTPublic, auth string) *tpmKey {
	t.Helper()
	srk := createSRK(t, tpm)
	defer flush(t, tpm, srk.ObjectHandle)
	made, err := tpm2.Create{
		ParentHandle: tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(auth)}}},
		InPublic:     tpm2.New2B(pub),
	}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, tpm, srk, made.OutPublic, made.OutPrivate, auth)
}

func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func collect(t *testing.T, tpm transport.TPM, key evidence.Key, csr []byte, o evidence.Options) *evidence.Bundle {
	t.Helper()
	b, err := evidence.CollectUnchecked(context.Background(), tpm, key, csr, o)
	if err != nil {
		t.Fatal(err)
	}
	return copyOf(t, b)
}

// copyOf sends a bundle through its JSON.
func copyOf(t *testing.T, b *evidence.Bundle) *evidence.Bundle {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := evidence.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Marshal()
	if err != nil || !bytes.Equal(again, data) {
		t.Fatalf("another bundle after parsing: %v", err)
	}
	return got
}
