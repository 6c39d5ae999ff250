package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-iam/holdfast/tpm/tpmtest"
)

// scriptTB lets a script have what tests have.
type scriptTB struct {
	testing.TB // nil: what is not below must not be used
	ts         *testscript.TestScript
}

func (b scriptTB) Helper()                      {}
func (b scriptTB) Cleanup(f func())             { b.ts.Defer(f) }
func (b scriptTB) Error(args ...any)            { b.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (b scriptTB) Errorf(f string, args ...any) { b.ts.Fatalf(f, args...) }
func (b scriptTB) Fatal(args ...any)            { b.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (b scriptTB) Fatalf(f string, args ...any) { b.ts.Fatalf(f, args...) }
func (b scriptTB) Log(args ...any)              { b.ts.Logf("%s", fmt.Sprint(args...)) }
func (b scriptTB) Logf(f string, args ...any)   { b.ts.Logf(f, args...) }
func (b scriptTB) Name() string                 { return "script" }

// scriptTPMs are a script's TPMs by name.
type scriptTPMs map[string]*scriptTPM

type scriptTPM struct {
	*tpmtest.TPM
	proxy *tpmtest.Proxy
}

type tpmsKey struct{}

// cmdTPM is the script command "tpm":
//
//	tpm start [unix|tcp|proxy]  starts swtpm and sets TPM_DEVICE, and what tpm2-tss
//	                            programs read; behind a proxy it records all bytes
//	tpm kill, tpm launch        kills swtpm, starts it again with the same state
//	tpm reset                   powers it off and on
//	tpm empty                   nothing is loaded
//	tpm forget                  forgets what the proxy recorded
//	[!] tpm saw TEXT            TEXT has passed the proxy, at any place
//	tpm commands NAME=COUNT…    just these commands have passed since it was last asked
//
// tpm2-tools and openssl are run with exec.
func cmdTPM(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: tpm start|kill|launch|reset|empty|forget|saw|commands")
	}
	tpms := ts.Value(tpmsKey{}).(scriptTPMs)
	if args[0] == "start" {
		startScriptTPM(ts, tpms, append(args, "unix")[1])
		return
	}
	s := tpms["tpm"]
	if s == nil {
		ts.Fatalf("no TPM: tpm start")
	}
	switch args[0] {
	case "kill":
		s.Kill()
	case "launch":
		s.Launch()
	case "reset":
		s.Reset()
	case "empty":
		s.CheckEmpty()
	case "forget":
		s.proxy.Forget()
	case "saw":
		if s.proxy.Saw([]byte(args[1])) == neg {
			ts.Fatalf("%q among the bytes that passed: %v", args[1], neg)
		}
	case "commands":
		checkCommands(ts, s.proxy.Commands(), args[1:])
	default:
		ts.Fatalf("unknown: tpm %s", args[0])
	}
}

func startScriptTPM(ts *testscript.TestScript, tpms scriptTPMs, kind string) {
	s := &scriptTPM{}
	tcti := ""
	switch tb := (scriptTB{ts: ts}); kind {
	case "unix":
		s.TPM = tpmtest.Start(tb)
	case "tcp":
		s.TPM = tpmtest.StartTCP(tb)
	case "proxy":
		s.TPM = tpmtest.Start(tb)
		s.proxy = tpmtest.NewProxy(tb, s.TPM)
		tcti = s.proxy.Spec()
	default:
		ts.Fatalf("tpm start %s: not unix, tcp or proxy", kind)
	}
	if tcti == "" {
		tcti = s.TCTI()
	}
	tpms["tpm"] = s
	ts.Setenv("TPM_DEVICE", tcti)
	ts.Setenv("TPM2TOOLS_TCTI", s.TCTI())
	ts.Setenv("TPM2OPENSSL_TCTI", s.TCTI())
}

func checkCommands(ts *testscript.TestScript, codes []uint32, want []string) {
	count := map[string]int{}
	for _, c := range codes {
		count[commandName(c)]++
	}
	var got []string
	for name, n := range count {
		got = append(got, name+"="+strconv.Itoa(n))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		text, _ := json.Marshal(got)
		ts.Fatalf("the TPM got %s", text)
	}
}

// commandName names the commands that signing is made of.
func commandName(code uint32) string {
	if name, ok := map[uint32]string{
		0x131: "CreatePrimary", 0x153: "Create", 0x157: "Load", 0x165: "FlushContext", 0x15d: "Sign",
		0x173: "ReadPublic", 0x176: "StartAuthSession", 0x17a: "GetCapability", 0x17e: "PCR_Read",
		0x17f: "PolicyPCR", 0x16b: "PolicyAuthValue", 0x16a: "PolicyAuthorize", 0x189: "PolicyGetDigest",
		0x162: "ContextSave", 0x161: "ContextLoad", 0x169: "NV_ReadPublic", 0x14e: "NV_Read", 0x120: "EvictControl",
	}[code]; ok {
		return name
	}
	return fmt.Sprintf("%#x", code)
}
