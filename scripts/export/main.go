//go:build cgo

// Command export tries to get a private key out of a PKCS#11 token in every way
// that the interface has: by reading its value and by wrapping it under a key
// of the caller's. The demo runs it on holdfast's keys; it succeeds, with exit
// code 0, if the token refuses.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/miekg/pkcs11"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: export MODULE PIN-FILE TOKEN LABEL")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "export:", err)
		os.Exit(1)
	}
}

func run(module, pinFile, token, label string) error {
	pin, err := os.ReadFile(pinFile)
	if err != nil {
		return err
	}
	ctx := pkcs11.New(module)
	if ctx == nil {
		return fmt.Errorf("%s cannot be loaded", module)
	}
	defer ctx.Destroy()
	if err := ctx.Initialize(); err != nil {
		return err
	}
	defer ctx.Finalize()
	slot, err := findToken(ctx, token)
	if err != nil {
		return err
	}
	session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := ctx.Login(session, pkcs11.CKU_USER, strings.TrimSpace(string(pin))); err != nil {
		return err
	}
	if err := ctx.FindObjectsInit(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}); err != nil {
		return err
	}
	keys, _, err := ctx.FindObjects(session, 1)
	if err != nil || len(keys) == 0 {
		return fmt.Errorf("no private key %q: %v", label, err)
	}
	if err := ctx.FindObjectsFinal(session); err != nil {
		return err
	}

	_, err = ctx.GetAttributeValue(session, keys[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err := refused("reading the private key", err, pkcs11.CKR_ATTRIBUTE_SENSITIVE); err != nil {
		return err
	}
	wrapping, err := ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
	})
	if err != nil {
		return err
	}
	_, err = ctx.WrapKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, wrapping, keys[0])
	return refused("wrapping the private key", err, pkcs11.CKR_KEY_UNEXTRACTABLE)
}

// refused says how an attempt ended, and is an error unless the token refused
// it for the reason wanted.
func refused(attempt string, err error, want pkcs11.Error) error {
	var got pkcs11.Error
	if !errors.As(err, &got) || got != want {
		return fmt.Errorf("%s: %v; want %v", attempt, err, want)
	}
	fmt.Fprintf(os.Stderr, "%s: refused by the token (%v)\n", attempt, got)
	return nil
}

func findToken(ctx *pkcs11.Ctx, label string) (uint, error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		if info, err := ctx.GetTokenInfo(slot); err == nil && strings.TrimRight(info.Label, " ") == label {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("no token %q", label)
}
