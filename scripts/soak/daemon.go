package main

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

const (
	authorization = "the-authorization-token-of-the-soak"
	// sessionLife leaves, when a refresh is due, time for several attempts.
	sessionLife = 3 * time.Minute
)

type daemon struct {
	dir   string
	aws   *rolesanywheretest.Server
	ca    *enroll.CA
	cmd   *exec.Cmd
	base  string
	tpm   *softTPM // nil: the keys are files
	swaps atomic.Int64
}

func start(dir string, inTPM bool) (d *daemon, err error) {
	d = &daemon{dir: dir, aws: rolesanywheretest.NewUnstartedServer()}
	d.aws.MinSession, d.aws.Latency = time.Second, 300*time.Millisecond
	d.aws.Start()
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	if inTPM {
		if d.tpm, err = startTPM(dir); err != nil {
			return d, err
		}
	}
	if err := d.enroll(); err != nil {
		return d, err
	}
	binary := d.path("holdfast")
	build := exec.Command("go", "build", "-o", binary, "./cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return d, fmt.Errorf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "serve", "--port", "0", "--config", d.path("serve.conf"))
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+dir)
	if d.tpm != nil {
		cmd.Env = append(cmd.Env, "TPM_DEVICE="+d.tpm.spec)
	}
	log, err := os.Create(d.path("log"))
	if err != nil {
		return d, err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return d, err
	}
	if err := cmd.Start(); err != nil {
		return d, err
	}
	d.cmd = cmd
	var export, assignment string
	if _, err := fmt.Fscanln(out, &export, &assignment); err != nil {
		return d, fmt.Errorf("holdfast serve: %w", err)
	}
	_, url, _ := strings.Cut(assignment, "=")
	d.base = strings.TrimSuffix(url, "/")
	return d, nil
}

func (d *daemon) stop() {
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		_ = d.cmd.Wait()
	}
	if d.tpm != nil {
		d.tpm.stop()
	}
	d.aws.Close()
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *daemon) enroll() error {
	caKey, err := software.Generate("ec-p256")
	if err != nil {
		return err
	}
	if d.ca, err = enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "soak CA"}}); err != nil {
		return err
	}
	if err := d.renew(); err != nil {
		return err
	}
	d.swaps.Store(0)
	anchor, err := d.aws.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "soak", Certificates: []*x509.Certificate{d.ca.Certificate}})
	if err != nil {
		return err
	}
	role := d.aws.AddRole(rolesanywheretest.Role{Name: "soak"})
	profile := d.aws.AddProfile(rolesanywheretest.Profile{Name: "soak", RoleARNs: []string{role}, Duration: sessionLife})
	config := fmt.Sprintf("[defaults]\ncertificate = %s\nprivate-key = %s\nendpoint = %s\ntrust-anchor-arn = %s\nprofile-arn = %s\nrole-arn = %s\n[role imds]\n[role ecs]\nauthorization-token-file = %s\n",
		d.path("cert.pem"), d.path("key.pem"), d.aws.URL, anchor, profile, role, d.path("token"))
	if d.tpm != nil {
		config = strings.Replace(config, "[defaults]\n", "[defaults]\ntpm-key-auth = file:"+d.tpm.passwordFile()+"\n", 1)
	}
	if err := os.WriteFile(d.path("token"), []byte(authorization), 0o600); err != nil {
		return err
	}
	return os.WriteFile(d.path("serve.conf"), []byte(config), 0o600)
}

// renew puts a new key and a certificate for it into place, one after the
// other, as careless tools do.
func (d *daemon) renew() error {
	text, public, err := d.newKey()
	if err != nil {
		return err
	}
	leaf, err := d.ca.Issue(public, enroll.LeafOptions{Subject: pkix.Name{CommonName: "soak"}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.path("key.pem"), text, 0o600); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	d.swaps.Add(1)
	return os.WriteFile(d.path("cert.pem"), enroll.EncodePEM(leaf), 0o600)
}

func (d *daemon) newKey() ([]byte, crypto.PublicKey, error) {
	if d.tpm != nil {
		return d.tpm.newKey()
	}
	key, err := software.Generate("ec-p256")
	if err != nil {
		return nil, nil, err
	}
	text, err := software.MarshalPrivateKey(key, signer.Secret{})
	return text, key.Public(), err
}

// A measure is what must not grow.
type measure struct {
	goroutines, descriptors int
	rss                     int // KiB
	handles                 int // in the TPM
}

func (m measure) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %.1f MiB, %d TPM handles", m.goroutines, m.descriptors, float64(m.rss)/1024, m.handles)
}

// grownBeyond allows for the connections that come and go with the load, and
// for the collector's slack.
func (m measure) grownBeyond(first measure) error {
	const slack = 24 // connections at the moment of the measure
	if m.goroutines > first.goroutines+2*slack || m.descriptors > first.descriptors+slack || m.rss > first.rss*5/4+4096 || m.handles > first.handles {
		return fmt.Errorf("it has grown from %v to %v", first, m)
	}
	return nil
}

func (d *daemon) measure() (m measure, err error) {
	resp, err := http.Get(d.base + "/metrics")
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return m, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return m, err
	}
	m.goroutines, m.descriptors = number(string(text), "\nholdfast_goroutines "), number(string(text), "\nholdfast_open_descriptors ")
	m.rss = number(string(status), "\nVmRSS:")
	if m.goroutines == 0 || m.descriptors == 0 || m.rss == 0 {
		return m, fmt.Errorf("holdfast does not tell: %v", m)
	}
	if d.tpm != nil {
		m.handles, err = d.tpm.handles()
	}
	return m, err
}

// number reads what follows name in text; 0 if it is not there.
func number(text, name string) int {
	n := 0
	if _, after, ok := strings.Cut(text, name); ok {
		_, _ = fmt.Sscan(after, &n)
	}
	return n
}
