package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/holdfast-iam/holdfast/signer/enroll"
	"github.com/holdfast-iam/holdfast/signer/rolesanywhere/rolesanywheretest"
)

// programs is the directory of holdfast and holdfast-lab, built for the tests.
var programs string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "programs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	if out, err := exec.Command("go", "build", "-o", programs+string(filepath.Separator), ".", "../holdfast", "../holdfast-pkcs11").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// program returns the path of one of the programs.
func program(name string) string { return filepath.Join(programs, name) }

// tool returns the path of a tool that a test cannot do without.
func tool(t *testing.T, name, install string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s: %s", name, install)
	}
	return path
}

// awsCLIs returns the aws on PATH, and Debian's if that is another.
func awsCLIs(t *testing.T) []string {
	t.Helper()
	found := []string{tool(t, "aws", "apt-get install awscli")}
	if _, err := os.Stat("/usr/bin/aws"); err == nil && found[0] != "/usr/bin/aws" {
		found = append(found, "/usr/bin/aws")
	}
	return found
}

// pythons returns every python3, on PATH and the system's, that has boto3.
func pythons(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		path, err := exec.LookPath(name)
		if err == nil && !slices.Contains(found, path) && exec.Command(path, "-c", "import boto3").Run() == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Fatal("this test needs python3 with boto3: apt-get install python3-boto3")
	}
	return found
}

// isolate gives what runs in a lab a home and a place for temporary files of
// its own, and checks at the end that no lab left a file there.
func isolate(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab") // not in t.TempDir: the path of a TPM's socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "it's a $place")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())            // before TMPDIR, where it would lie
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // else holdfast's locks may lie in TMPDIR
	t.Setenv("TMPDIR", tmp)
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(tmp, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
}

func start(t *testing.T, change func(*options)) *lab {
	t.Helper()
	isolate(t)
	o := options{role: "edge-workload", region: "eu-central-1", keyType: "ec-p256", sessionLife: time.Hour}
	var err error
	if o.subjectName, err = enroll.ParseSubject("CN=device-1,O=Acme"); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	l, err := newLab(o, program("holdfast"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// runIn runs a command in the lab and returns its output and exit code.
func runIn(t *testing.T, l *lab, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	signals := catchSignals()
	defer signals.stop()
	var out, errs bytes.Buffer
	code, err := runCommand(context.Background(), args, environ(os.Environ(), l.variables()), signals, nil, &out, &errs)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

// credentialProcess gets a session, by hand.
func credentialProcess(l *lab) []string {
	return []string{"holdfast", "credential-process", "--certificate", l.path("device.crt"), "--private-key", l.key.reference,
		"--trust-anchor-arn", l.anchorARN, "--profile-arn", l.profileARN, "--role-arn", l.roleARN}
}

// An AWS CLI, through holdfast, with every kind of key.
func TestAWSCLI(t *testing.T) {
	for _, aws := range awsCLIs(t) {
		for _, key := range []string{"ec-p256", "rsa-2048", "ml-dsa-65", "pkcs11", "pkcs11:rsa-2048", "tpm", "tpm:ec-p384", "tpm:rsa-2048", "tpm-handle"} {
			t.Run(aws+" "+key, func(t *testing.T) {
				l := start(t, func(o *options) { o.keyType = key; o.role = "cli" })
				whoami := func(profile, want string) {
					t.Helper()
					out, errs, code := runIn(t, l, aws, "--endpoint-url", l.stsURL, "--profile", profile, "--output", "json", "sts", "get-caller-identity")
					if code != 0 {
						t.Fatalf("exit code %d: %s", code, errs)
					}
					var identity struct{ Arn, Account string }
					if err := json.Unmarshal([]byte(out), &identity); err != nil {
						t.Fatal(err)
					}
					if !strings.Contains(identity.Arn, want) || identity.Account != accountID {
						t.Errorf("got %+v, want %s", identity, want)
					}
				}
				whoami(profileName, "assumed-role/cli/")
				if readsEndpoints(t, aws) {
					whoami(chainedProfile, "assumed-role/cli-chained/holdfast-lab-")
				}
				out, errs, code := runIn(t, l, aws, "--endpoint-url", l.stsURL, "sts", "assume-role",
					"--role-arn", l.chainedARN, "--role-session-name", "hop", "--query", "AssumedRoleUser.Arn", "--output", "text")
				if code != 0 || out != "arn:aws:sts::123456789012:assumed-role/cli-chained/hop\n" {
					t.Errorf("exit code %d: %s%s", code, out, errs)
				}
			})
		}
	}
}

// readsEndpoints reports whether an AWS CLI knows AWS_ENDPOINT_URL_STS and
// services sections: 1.29 and 2.13 were the first.
func readsEndpoints(t *testing.T, aws string) bool {
	t.Helper()
	out, err := exec.Command(aws, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "aws-cli/%d.%d.", &major, &minor); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return major == 1 && minor >= 29 || major == 2 && minor >= 13 || major > 2
}

func TestBoto3Refreshes(t *testing.T) {
	for _, python := range pythons(t) {
		t.Run(python, func(t *testing.T) {
			l := start(t, func(o *options) { o.sessionLife = 4 * time.Second })
			out, errs, code := runIn(t, l, python, filepath.Join("testdata", "refresh.py"))
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			var saw struct {
				Boto3      string
				ARNs, Keys []string
				Refusal    string
				After      time.Time
			}
			if err := json.Unmarshal([]byte(out), &saw); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if saw.Refusal != "ExpiredToken" {
				t.Errorf("the first session was not refused as expired: %q", saw.Refusal)
			}
			if saw.ARNs[0] != saw.ARNs[1] || saw.Keys[0] == saw.Keys[1] {
				t.Errorf("identities %v, access keys %v", saw.ARNs, saw.Keys)
			}
			first, ok1 := l.anywhere.Session(saw.Keys[0])
			second, ok2 := l.anywhere.Session(saw.Keys[1])
			if !ok1 || !ok2 {
				t.Fatalf("the lab did not issue %v", saw.Keys)
			}
			if !first.Expiration.Before(saw.After) || !second.Expiration.After(saw.After) {
				t.Errorf("expirations %v and %v, refreshed after %v", first.Expiration, second.Expiration, saw.After)
			}
			for _, r := range l.anywhere.Requests() {
				if r.Status != 201 {
					t.Errorf("a session was refused: %s %s", r.Message, r.Reason)
				}
			}
			t.Logf("boto3 %s: %d sessions", saw.Boto3, l.anywhere.RequestCount())
		})
	}
}

func TestGoSDK(t *testing.T) {
	l := start(t, nil)
	for profile, want := range map[string]string{profileName: l.role + "/", chainedProfile: l.role + "-chained/holdfast-lab-"} {
		c, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithSharedConfigProfile(profile),
			awsconfig.WithSharedConfigFiles([]string{l.path("config")}), awsconfig.WithSharedCredentialsFiles([]string{l.path("credentials")}))
		if err != nil {
			t.Fatal(err)
		}
		out, err := awssts.NewFromConfig(c).GetCallerIdentity(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(*out.Arn, "arn:aws:sts::"+accountID+":assumed-role/"+want) {
			t.Errorf("%s: got %s", profile, *out.Arn)
		}
	}
}

func TestFaultsLatencyAndRegion(t *testing.T) {
	l := start(t, func(o *options) {
		o.region, o.latency = "cn-north-1", 50*time.Millisecond
		o.faultQueue = []rolesanywheretest.Fault{rolesanywheretest.Status503}
	})
	began := time.Now()
	out, errs, code := runIn(t, l, tool(t, "aws", "apt-get install awscli"), "--endpoint-url", l.stsURL, "sts", "get-caller-identity")
	if code != 0 || !strings.Contains(out, "arn:aws-cn:sts::") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if n := l.anywhere.RequestCount(); n != 2 {
		t.Errorf("%d requests, not one that failed and one that did not", n)
	}
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("three answers of 50ms took %v", took)
	}
}

func TestFilesAndAddresses(t *testing.T) {
	l := start(t, nil)
	for path, mode := range map[string]os.FileMode{
		l.dir: 0o700 | os.ModeDir, l.path("device.key"): 0o600, l.path("ca.key"): 0o600, l.path("config"): 0o600, l.path("credentials"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, not %v", path, info.Mode(), mode)
		}
	}
	for _, url := range []string{l.stsURL, l.anywhere.URL} {
		if !strings.HasPrefix(url, "http://127.0.0.1:") {
			t.Errorf("listens on %s", url)
		}
	}
}

func TestNothingStaysBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, key := range []string{"file", "tpm"} {
		t.Run(key, func(t *testing.T) {
			l := start(t, func(o *options) { o.keyType = key })
			if _, errs, code := runIn(t, l, credentialProcess(l)...); code != 0 {
				t.Errorf("exit code %d: %s", code, errs)
			}
		})
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if after := runtime.NumGoroutine(); after > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines more\n%s", after-before, buf[:runtime.Stack(buf, true)])
	}
}

func TestEnvironment(t *testing.T) {
	l := start(t, nil)
	base := []string{
		"HOME=/home/x", "PATH=/bin", "NO_PROXY=.acme.example", "AWS_PROFILE=production", "AWS_ACCESS_KEY_ID=AKIA", "AWS_SECRET_ACCESS_KEY=s",
		"AWS_SESSION_TOKEN=t", "AWS_ROLE_ARN=r", "AWS_WEB_IDENTITY_TOKEN_FILE=f", "AWS_CONTAINER_CREDENTIALS_FULL_URI=u",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN=t", "AWS_ENDPOINT_URL=http://192.0.2.1",
	}
	env := environ(base, l.variables())
	seen := map[string]string{}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := seen[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = value
	}
	for name, want := range map[string]string{
		"HOME": "/home/x", "PATH": filepath.Dir(l.holdfast) + ":/bin", "NO_PROXY": ".acme.example,127.0.0.1,localhost",
		"no_proxy": ".acme.example,127.0.0.1,localhost", "AWS_PROFILE": profileName, "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1",
		"AWS_ENDPOINT_URL_STS": l.stsURL, "AWS_ENDPOINT_URL_ROLESANYWHERE": l.anywhere.URL, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_STS_REGIONAL_ENDPOINTS": "regional", "AWS_PAGER": "", "HOLDFAST_LAB_ROLE_ARN": l.roleARN,
		"XDG_STATE_HOME": l.path("state"),
	} {
		if got, ok := seen[name]; !ok || got != want {
			t.Errorf("%s is %q (there: %t), want %q", name, got, ok, want)
		}
	}
	for _, name := range removed {
		if _, ok := seen[name]; ok {
			t.Errorf("%s is still there", name)
		}
	}
}
