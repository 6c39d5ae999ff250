package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
)

const (
	// clientLife is the sessions' in TestRealClients.
	clientLife = 60 * time.Second
	expiries   = 3
)

// A realClient is a program that asks STS who it is, again and again until the
// time in $UNTIL (Unix seconds), and prints a line for each answer: an ARN, and
// the access key if it can tell. One that keeps a process sees each refresh as
// a long-lived workload does.
type realClient struct {
	name string
	note string
	argv []string
}

const boto3Loop = `
import os, sys, time, boto3
def ask(session):
    sts = session.client("sts", region_name=os.environ["AWS_REGION"], endpoint_url=os.environ["AWS_ENDPOINT_URL_STS"])
    return sts.get_caller_identity()["Arn"], session.get_credentials().get_frozen_credentials().access_key
one = boto3.Session()
while time.time() < float(os.environ["UNTIL"]):
    # A session keeps what IMDS gave it for at least 12 minutes, whatever its
    # Expiration: short ones take a new session each time.
    print(*ask(boto3.Session() if "AWS_EC2_METADATA_SERVICE_ENDPOINT" in os.environ else one), flush=True)
    time.sleep(1)
`

const nodeLoop = `
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
(async () => {
  const sts = new STSClient({ region: process.env.AWS_REGION, endpoint: process.env.AWS_ENDPOINT_URL_STS });
  while (Date.now() / 1000 < Number(process.env.UNTIL)) {
    const who = await sts.send(new GetCallerIdentityCommand({}));
    console.log(who.Arn, (await sts.config.credentials()).accessKeyId);
    await new Promise((done) => setTimeout(done, 1000));
  }
})().catch((e) => { console.error(e); process.exit(1); });
`

const cliLoop = `
while [ "$(date +%s)" -lt "$UNTIL" ]; do
	"$0" --endpoint-url "$AWS_ENDPOINT_URL_STS" sts get-caller-identity --output text --query Arn || exit 1
	sleep 1
done
`

// TestGoClient is no test of its own: it is the realClient of aws-sdk-go-v2.
func TestGoClient(t *testing.T) {
	var until int64
	if _, err := fmt.Sscan(os.Getenv("UNTIL"), &until); err != nil {
		return
	}
	cfg, err := awsconfig.LoadDefaultConfig(t.Context())
	must(t, err)
	client := awssts.NewFromConfig(cfg)
	for time.Now().Unix() < until {
		c, err := cfg.Credentials.Retrieve(t.Context())
		must(t, err)
		// What IMDS gave it for less than 15 minutes this SDK keeps to the very
		// end: not to sign with what is over when it arrives, it waits for that.
		if left := time.Until(c.Expires); left > 0 && left < 3*time.Second {
			time.Sleep(left)
			continue
		}
		who, err := client.GetCallerIdentity(t.Context(), &awssts.GetCallerIdentityInput{})
		must(t, err)
		fmt.Println(*who.Arn, c.AccessKeyID)
		time.Sleep(time.Second)
	}
}

// TestRealClients lets the SDKs that people use get their credentials from
// serve while its sessions expire, and STS verify what they sign.
func TestRealClients(t *testing.T) {
	clients := realClients(t)
	lab := startLab(t)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	const secret = "an-authorization-token-of-the-test"
	must(t, os.WriteFile(token, []byte(secret), 0o600))
	config := filepath.Join(dir, "serve.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `[defaults]
certificate = %s
private-key = %s
trust-anchor-arn = %s
profile-arn = %s
role-arn = %s
endpoint = %s
[role imds]
[role ecs]
authorization-token-file = %s
`, lab["HOLDFAST_LAB_CERTIFICATE"], lab["HOLDFAST_LAB_PRIVATE_KEY"], lab["HOLDFAST_LAB_TRUST_ANCHOR_ARN"], lab["HOLDFAST_LAB_PROFILE_ARN"],
		lab["HOLDFAST_LAB_ROLE_ARN"], lab["AWS_ENDPOINT_URL_ROLESANYWHERE"], token), 0o600))
	v := (&site{t: t}).serve("--config", config, "--port", "0")
	base := v.url()

	until := time.Now().Add((expiries+1)*clientLife - clientLife/2)
	protocols := map[string][]string{
		"IMDSv2": {"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + base + "/", "AWS_METADATA_SERVICE_TIMEOUT=10", "AWS_METADATA_SERVICE_NUM_ATTEMPTS=3"},
		"ECS": {"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + base + "/role/ecs", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + token,
			"AWS_CONTAINER_AUTHORIZATION_TOKEN=" + secret}, // what botocore before 1.33 reads
	}
	var mu sync.Mutex
	var rows []string
	var running sync.WaitGroup
	for _, c := range clients {
		for protocol, env := range protocols {
			running.Go(func() {
				row := c.run(t, protocol, env, lab, until)
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, row)
			})
		}
	}
	running.Wait()
	slices.Sort(rows)
	t.Logf("sessions of %v, %d expiries\n%-44s %-8s %7s %9s  %s\n%s", clientLife, expiries, "client", "by", "answers", "sessions", "verdict", strings.Join(rows, "\n"))
	if made := strings.Count(v.stderr.String(), `"msg":"session"`); made < 2*(expiries+1) {
		t.Errorf("only %d sessions were made", made)
	}
}

// run returns the client's row of the table.
func (c realClient) run(t *testing.T, protocol string, env []string, lab map[string]string, until time.Time) string {
	ctx, cancel := context.WithDeadline(t.Context(), until.Add(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	home := t.TempDir()
	cmd.Dir = home
	cmd.Env = append([]string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_PAGER=", "NO_PROXY=*",
		"AWS_REGION=" + lab["AWS_REGION"], "AWS_DEFAULT_REGION=" + lab["AWS_REGION"], "AWS_ENDPOINT_URL_STS=" + lab["AWS_ENDPOINT_URL_STS"],
		fmt.Sprintf("UNTIL=%d", until.Unix()),
	}, env...)
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		cmd.Env = append(cmd.Env, "PYENV_ROOT="+root)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	answers, keys := 0, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if arn, key, _ := strings.Cut(strings.TrimSpace(line), " "); strings.Contains(arn, ":assumed-role/edge-workload/") {
			answers++
			if key != "" {
				keys[key] = true
			}
		}
	}
	verdict, sessions := "passed", fmt.Sprint(len(keys))
	if len(keys) == 0 {
		sessions = "-" // the client does not tell
	}
	if err != nil || answers <= expiries || len(keys) != 0 && len(keys) <= expiries {
		verdict = "FAILED"
		t.Errorf("%s by %s: %v, %d answers, %d sessions\n%s%s", c.name, protocol, err, answers, len(keys), out, &stderr)
	}
	return fmt.Sprintf("%-44s %-8s %7d %9s  %s%s", c.name, protocol, answers, sessions, verdict, c.note)
}

// realClients finds the programs, and installs what no distribution has.
func realClients(t *testing.T) []realClient {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	clients := []realClient{{name: "aws-sdk-go-v2", argv: []string{self, "-test.run=^TestGoClient$"}}}
	aws := needTool(t, "aws", "apt-get install awscli")
	version, err := exec.Command(aws, "--version").CombinedOutput()
	must(t, err)
	name, _, _ := strings.Cut(string(version), " ")
	clients = append(clients, realClient{name: name, note: "; a process for each answer", argv: []string{"sh", "-c", cliLoop, aws}})
	python := ""
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if python == "" && exec.Command(p, "-c", "import boto3").Run() == nil {
			python = p
		}
	}
	if python == "" {
		t.Fatal("this test needs python3 with boto3: apt-get install python3-boto3")
	}
	version, err = exec.Command(python, "-c", "import boto3; print(boto3.__version__)").Output()
	must(t, err)
	clients = append(clients, realClient{name: "boto3 " + strings.TrimSpace(string(version)), argv: []string{python, "-c", boto3Loop}})

	node, npm := needTool(t, "node", "apt-get install nodejs npm"), needTool(t, "npm", "apt-get install nodejs npm")
	dir := t.TempDir()
	install := exec.Command(npm, "install", "--no-audit", "--no-fund", "--no-save", "--prefix", dir, "@aws-sdk/client-sts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install @aws-sdk/client-sts: %v (it needs the npm registry)\n%s", err, out)
	}
	var pkg struct{ Version string }
	text, err := os.ReadFile(filepath.Join(dir, "node_modules/@aws-sdk/client-sts/package.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &pkg))
	script := filepath.Join(dir, "loop.js")
	must(t, os.WriteFile(script, []byte(nodeLoop), 0o600))
	return append(clients, realClient{name: "@aws-sdk/client-sts " + pkg.Version, argv: []string{node, script}})
}

func needTool(t *testing.T, name, install string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s: %s", name, install)
	}
	return path
}

// startLab runs holdfast-lab and returns the variables it exports.
func startLab(t *testing.T, flags ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	lab, holdfast := filepath.Join(dir, "holdfast-lab"), filepath.Join(dir, "holdfast")
	if out, err := exec.Command("go", "build", "-o", lab, "../holdfast-lab").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	must(t, os.WriteFile(holdfast, []byte("#!/bin/sh\nexit 1\n"), 0o700)) // nobody calls it
	cmd := exec.Command(lab, append([]string{"--quiet", "--holdfast", holdfast, "--session-duration", clientLife.String()}, flags...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	vars := map[string]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		assignment, ok := strings.CutPrefix(lines.Text(), "export ")
		if !ok {
			return vars // "unset …" is the last
		}
		name, value, _ := strings.Cut(assignment, "=")
		vars[name] = strings.Trim(value, "'")
	}
	t.Fatal("holdfast-lab ended")
	return nil
}
