package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-iam/holdfast/signer"
	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/tpm"
	"github.com/holdfast-iam/holdfast/tpm/evidence"
)

// graft OUT TO FROM FIELD… makes a JSON file as TO is, with the FIELDs (as
// key.public) of FROM. The FROM "-" takes them out.
func cmdGraft(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: graft OUT TO FROM FIELD...")
	}
	read := func(file string) (v map[string]any) {
		if file == "-" {
			return nil
		}
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &v))
		return v
	}
	to, from := read(args[1]), read(args[2])
	for _, field := range args[3:] {
		steps := strings.Split(field, ".")
		in, out := from, to
		for _, s := range steps[:len(steps)-1] {
			in, _ = in[s].(map[string]any)
			out = out[s].(map[string]any)
		}
		last := steps[len(steps)-1]
		if value, ok := in[last]; ok {
			out[last] = value
		} else {
			delete(out, last)
		}
	}
	data, err := json.Marshal(to)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// forge OUT KEYFILE REQUEST makes evidence for a request as a device would that
// was told not to look at the key: of any key that its TPM will use.
func cmdForge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: forge OUT KEYFILE REQUEST")
	}
	ctx := context.Background()
	file, err := tpm.ParseKeyFile([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	csr, err := enroll.ParseRequest([]byte(ts.ReadFile(args[2])))
	ts.Check(err)
	device, err := tpm.Config{LockDir: ts.Getenv(tpmLockDirEnv)}.Open(ctx, ts.Getenv("TPM_DEVICE"))
	ts.Check(err)
	defer device.Close()
	key, err := tpm.OpenKey(ctx, device, file, tpm.Options{Auth: func(context.Context, string) (signer.Secret, error) { return signer.Secret{}, nil }})
	ts.Check(err)
	defer key.Close()
	ts.Check(key.WithAdmin(ctx, func(l *tpm.Loaded) error {
		b, err := evidence.Collect(ctx, &flatterer{TPM: l.TPM, key: l.Auth.Handle}, evidence.Key{Handle: l.Auth.Handle, Auth: l.Auth.Auth}, csr.Raw, evidence.Options{})
		if err != nil {
			return err
		}
		data, err := b.Marshal()
		return errors.Join(err, os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
	}))
}

// A flatterer says once of a key that it cannot leave its TPM and was made there.
type flatterer struct {
	transport.TPM
	key  tpm2.TPMHandle
	done bool
}

func (f *flatterer) Send(command []byte) ([]byte, error) {
	rsp, err := f.TPM.Send(command)
	readsKey := slices.Equal(command[6:10], []byte{0, 0, 0x01, 0x73}) && binary.BigEndian.Uint32(command[10:]) == uint32(f.key)
	if err != nil || f.done || !readsKey {
		return rsp, err
	}
	f.done = true
	// After header, size, type and nameAlg: fixedTPM, fixedParent, sensitiveDataOrigin.
	attributes := rsp[16:20]
	binary.BigEndian.PutUint32(attributes, binary.BigEndian.Uint32(attributes)|1<<1|1<<4|1<<5)
	return rsp, nil
}
