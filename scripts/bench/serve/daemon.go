package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
	"github.com/holdfast-iam/holdfast/software"
)

// An endpoint is a path with the headers it needs and what it answers.
type endpoint struct {
	name, path, header, body string
}

type daemon struct {
	aws       *rolesanywheretest.Server
	cmd       *exec.Cmd
	address   string
	endpoints []endpoint
}

// startDaemon runs "holdfast serve" with a role for IMDS and one behind an
// authorization token.
func startDaemon(dir, binary string) (*daemon, error) {
	d := &daemon{aws: rolesanywheretest.NewServer()}
	config, token, err := d.writeConfig(dir)
	if err != nil {
		return nil, err
	}
	d.cmd = exec.Command(binary, "serve", "--port", "0", "--config", config)
	d.cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL_ROLESANYWHERE="+d.aws.URL)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.cmd.Stderr = log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	var export, assignment string
	if _, err := fmt.Fscanln(out, &export, &assignment); err != nil {
		d.stop()
		return nil, fmt.Errorf("holdfast serve: %w", err)
	}
	_, base, _ := strings.Cut(assignment, "=")
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	d.address = u.Host
	if err := d.learn(token); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
	d.aws.Close()
}

// learn asks once for everything.
func (d *daemon) learn(authorization string) error {
	const ttl = "X-aws-ec2-metadata-token-ttl-seconds"
	token, err := d.ask(http.MethodPut, "/latest/api/token", ttl, "21600")
	if err != nil {
		return err
	}
	const document = "/latest/meta-data/iam/security-credentials/imds"
	for _, e := range []endpoint{
		{name: "IMDSv2", path: document, header: "X-aws-ec2-metadata-token: " + token + "\r\n"},
		{name: "container", path: "/role/ecs", header: "Authorization: " + authorization + "\r\n"},
	} {
		name, value, _ := strings.Cut(strings.TrimSpace(e.header), ": ")
		if e.body, err = d.ask(http.MethodGet, e.path, name, value); err != nil {
			return err
		}
		d.endpoints = append(d.endpoints, e)
	}
	return nil
}

func (d *daemon) ask(method, path, header, value string) (string, error) {
	req, err := http.NewRequest(method, "http://"+d.address+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(header, value)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s %v", method, path, resp.Status, err)
	}
	return string(text), nil
}

func (d *daemon) writeConfig(dir string) (config, token string, err error) {
	caKey, err := software.Generate("ec-p256")
	if err != nil {
		return "", "", err
	}
	ca, err := enroll.NewCA(caKey, enroll.CAOptions{Subject: pkix.Name{CommonName: "bench CA"}})
	if err != nil {
		return "", "", err
	}
	key, err := software.Generate("ec-p256")
	if err != nil {
		return "", "", err
	}
	leaf, err := ca.Issue(key.Public(), enroll.LeafOptions{Subject: pkix.Name{CommonName: "bench"}})
	if err != nil {
		return "", "", err
	}
	text, err := software.MarshalPrivateKey(key, signer.Secret{})
	if err != nil {
		return "", "", err
	}
	anchor, err := d.aws.AddTrustAnchor(rolesanywheretest.TrustAnchor{Name: "bench", Certificates: []*x509.Certificate{ca.Certificate}})
	if err != nil {
		return "", "", err
	}
	role := d.aws.AddRole(rolesanywheretest.Role{Name: "bench"})
	profile := d.aws.AddProfile(rolesanywheretest.Profile{Name: "bench", RoleARNs: []string{role}})
	token = strings.Repeat("bench", 8)
	file := func(name string) string { return filepath.Join(dir, name) }
	config = file("serve.conf")
	for name, text := range map[string]string{
		"token":      token,
		"key.pem":    string(text),
		"cert.pem":   string(enroll.EncodePEM(leaf)),
		"serve.conf": fmt.Sprintf("[defaults]\ncertificate = %s\nprivate-key = %s\ntrust-anchor-arn = %s\nprofile-arn = %s\nrole-arn = %s\n[role imds]\n[role ecs]\nauthorization-token-file = %s\n", file("cert.pem"), file("key.pem"), anchor, profile, role, file("token")),
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			return "", "", err
		}
	}
	return config, token, nil
}
