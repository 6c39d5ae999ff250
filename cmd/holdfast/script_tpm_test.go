package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"
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
	maker *tpmtest.EKCA
}

type tpmsKey struct{}

// cmdTPM is the script command "tpm":
//
//	tpm start [unix|tcp|proxy]  starts swtpm and sets TPM_DEVICE, and what tpm2-tss
//	                            programs read; behind a proxy it records all bytes
//	tpm start ek|foreign-ek     the same as proxy, with EK certificates; $EK_CA is their CA's.
//	                            All TPMs but foreign ones are of one maker. Those of
//	                            before go on: keep their $TPM_DEVICE to speak to them
//	tpm kill, tpm launch        kills swtpm, starts it again with the same state
//	tpm reset                   powers it off and on
//	tpm empty                   nothing is loaded
//	tpm forget                  forgets what the proxy recorded
//	[!] tpm saw TEXT            TEXT has passed the proxy, at any place
//	[!] tpm kept TEXT…          none of TEXT has passed, as it is or in another form,
//	                            nor a command that puts a password at risk
//	tpm fault COMMAND WHAT [N]  the next N of COMMAND, or all, are answered with WHAT:
//	                            a code such as RC_RETRY, or garbage, cut or hang
//	tpm fault none              no more
//	tpm tries N                 so many wrong passwords were counted
//	tpm commands NAME=COUNT…    just these commands have passed since it was last asked
//
// tpm2-tools and openssl are run with exec.
func cmdTPM(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: tpm start|kill|launch|reset|empty|forget|saw|kept|fault|tries|commands")
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
	case "kept":
		checkKept(ts, s.proxy, neg, args[1:])
	case "fault":
		setTPMFault(ts, s.proxy, args[1:])
	case "tries":
		if n := failedTries(s.TPM); len(args) != 2 || strconv.Itoa(n) != args[1] {
			ts.Fatalf("%d wrong passwords were counted", n)
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
	case "ek", "foreign-ek":
		if last := tpms["tpm"]; last != nil && kind == "ek" {
			s.maker = last.maker
		}
		if s.maker == nil {
			s.maker = tpmtest.NewEKCA(tb)
		}
		s.TPM = s.maker.Start(tb)
		s.proxy = tpmtest.NewProxy(tb, s.TPM)
		tcti = s.proxy.Spec()
		ts.Setenv("EK_CA", s.maker.Root())
		ts.Setenv("EK_ISSUER", s.maker.Issuer())
	default:
		ts.Fatalf("tpm start %s: not unix, tcp, proxy or ek", kind)
	}
	if tcti == "" {
		tcti = s.TCTI()
	}
	locks := ts.MkAbs(".locks")
	ts.Check(os.MkdirAll(locks, 0o700))
	ts.Setenv(tpmLockDirEnv, locks)
	tpms["tpm"] = s
	ts.Setenv("TPM_DEVICE", tcti)
	ts.Setenv("TPM2TOOLS_TCTI", s.TCTI())
	ts.Setenv("TPM2OPENSSL_TCTI", s.TCTI())
}

func checkKept(ts *testscript.TestScript, p *tpmtest.Proxy, neg bool, secrets []string) {
	if n := len(p.Captured()); n < 500 {
		ts.Fatalf("only %d bytes have passed, which proves nothing", n)
	}
	found := p.Careless()
	for _, s := range secrets {
		if how := p.Betrays(s); how != "" {
			found = append(found, fmt.Sprintf("%q has passed, %s", s, how))
		}
	}
	if (len(found) > 0) != neg {
		ts.Fatalf("secrets at risk: %q", found)
	}
}

func setTPMFault(ts *testscript.TestScript, p *tpmtest.Proxy, args []string) {
	p.Answer(nil)
	p.Fault(nil)
	if len(args) == 1 && args[0] == "none" {
		return
	}
	left := int64(math.MaxInt64)
	if len(args) == 3 {
		n, err := strconv.ParseInt(args[2], 10, 64)
		ts.Check(err)
		left = n
	} else if len(args) != 2 {
		ts.Fatalf("usage: tpm fault COMMAND WHAT [N]")
	}
	var passed atomic.Int64
	befalls := func(code uint32) bool {
		return (args[0] == "*" || commandName(code) == args[0]) && passed.Add(1) <= left
	}
	if rc, ok := tpmCodes[args[1]]; ok {
		p.Fault(func(code uint32, _ []byte) (uint32, bool) { return uint32(rc), befalls(code) })
		return
	}
	answer, ok := brokenAnswers[args[1]]
	if !ok {
		ts.Fatalf("tpm fault: no %s", args[1])
	}
	p.Answer(func(code uint32, _ []byte) ([]byte, bool) { return answer, befalls(code) })
}

var tpmCodes = map[string]tpm2.TPMRC{
	"RC_RETRY": tpm2.TPMRCRetry, "RC_YIELDED": tpm2.TPMRCYielded, "RC_TESTING": tpm2.TPMRCTesting, "RC_NV_RATE": tpm2.TPMRCNVRate,
	"RC_FAILURE": tpm2.TPMRCFailure, "RC_OBJECT_MEMORY": tpm2.TPMRCObjectMemory, "success": 0, // without what it is of
}

// brokenAnswers are those of what is no TPM.
var brokenAnswers = map[string][]byte{
	"garbage": []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	"huge":    {0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	"cut":     {0x80, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3},
	"short":   {0x80, 1, 0, 0},
	"empty":   {},
	"hang":    nil,
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
