package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/tpm"
)

// A softTPM is an swtpm that holds the keys, which have a password, so that
// sessions come and go too.
type softTPM struct {
	dir, spec, password string
	cmd                 *exec.Cmd
	device              *tpm.Device
}

func startTPM(dir string) (*softTPM, error) {
	socket := filepath.Join(dir, "tpm")
	secret := make([]byte, 8)
	_, _ = rand.Read(secret)
	s := &softTPM{dir: dir, spec: "swtpm:path=" + socket, password: hex.EncodeToString(secret)}
	if err := os.WriteFile(s.passwordFile(), []byte(s.password), 0o600); err != nil {
		return nil, err
	}
	s.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("swtpm: %w", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			s.stop()
			return nil, fmt.Errorf("swtpm does not start: %w", err)
		}
	}
	var err error
	s.device, err = tpm.Open(context.Background(), s.spec)
	return s, err
}

func (s *softTPM) passwordFile() string { return filepath.Join(s.dir, "password") }

func (s *softTPM) stop() {
	if s.device != nil {
		_ = s.device.Close()
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// newKey makes a key and returns its file.
func (s *softTPM) newKey() (text []byte, public crypto.PublicKey, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	file, err := tpm.CreateKey(ctx, s.device, tpm.CreateOptions{Auth: signer.NewSecret([]byte(s.password))})
	if err != nil {
		return nil, nil, err
	}
	text, err = file.PEM()
	return text, file.PublicKey(), err
}

// handles counts what stays in the TPM: objects, sessions, and contexts of
// sessions that were saved. What is in use at one moment is gone a second later.
func (s *softTPM) handles() (least int, err error) {
	for try := range 4 {
		n, err := s.count()
		if err != nil || n == 0 {
			return n, err
		}
		if try == 0 || n < least {
			least = n
		}
		time.Sleep(time.Second)
	}
	return least, nil
}

func (s *softTPM) count() (n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = s.device.Do(ctx, func(t transport.TPM) error {
		n = 0
		for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 256}.Execute(t)
			if err != nil {
				return err
			}
			list, err := rsp.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			n += len(list.Handle)
		}
		return nil
	})
	return n, err
}
