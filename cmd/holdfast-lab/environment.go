package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A variable of the environment.
type variable struct{ name, value string }

// removed are the variables that would lead a tool past the lab.
var removed = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CREDENTIAL_EXPIRATION",
	"AWS_ACCESS_KEY", "AWS_SECRET_KEY",
	"AWS_DEFAULT_PROFILE", "AWS_ACCOUNT_ID",
	"AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
	"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
	"AWS_EC2_METADATA_SERVICE_ENDPOINT",
	"AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
	"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT",
	"STATE_DIRECTORY", // systemd's; holdfast prefers it to XDG_STATE_HOME
}

// variables are what the command finds beside, or instead of, what there was.
func (l *lab) variables() []variable {
	vars := []variable{
		{"AWS_CONFIG_FILE", l.path("config")},
		{"AWS_SHARED_CREDENTIALS_FILE", l.path("credentials")},
		{"AWS_PROFILE", profileName},
		{"AWS_REGION", l.region},
		{"AWS_DEFAULT_REGION", l.region},
		{"AWS_ENDPOINT_URL_STS", l.stsURL},
		{"AWS_ENDPOINT_URL_ROLESANYWHERE", l.anywhere.URL},
		{"AWS_STS_REGIONAL_ENDPOINTS", "regional"},
		{"AWS_EC2_METADATA_DISABLED", "true"},
		{"AWS_PAGER", ""},
		{"XDG_STATE_HOME", l.path("state")},
		{"HOLDFAST_LAB_DIR", l.dir},
		{"HOLDFAST_LAB_TRUST_ANCHOR_ARN", l.anchorARN},
		{"HOLDFAST_LAB_PROFILE_ARN", l.profileARN},
		{"HOLDFAST_LAB_ROLE_ARN", l.roleARN},
		{"HOLDFAST_LAB_CHAINED_ROLE_ARN", l.chainedARN},
		{"HOLDFAST_LAB_CERTIFICATE", l.path("device.crt")},
		{"HOLDFAST_LAB_PRIVATE_KEY", l.key.reference},
		{"HOLDFAST_LAB_CA_CERTIFICATE", l.path("ca.crt")},
		{"HOLDFAST_LAB_CA_PRIVATE_KEY", l.path("ca.key")},
		{"PATH", filepath.Dir(l.holdfast)},
	}
	return append(vars, l.key.variables...)
}

// environ returns the command's environment: base without what is removed,
// and with vars. PATH goes before the PATH there was, and no proxy is used for
// the loopback.
func environ(base []string, vars []variable) []string {
	vars = complete(base, vars)
	var env []string
	for _, entry := range base {
		name, _, _ := strings.Cut(entry, "=")
		if slices.ContainsFunc(removed, func(r string) bool { return sameName(r, name) }) ||
			slices.ContainsFunc(vars, func(v variable) bool { return sameName(v.name, name) }) {
			continue
		}
		env = append(env, entry)
	}
	for _, v := range vars {
		env = append(env, v.name+"="+v.value)
	}
	return env
}

// exports returns the same as commands of a POSIX shell.
func exports(base []string, vars []variable) string {
	var b strings.Builder
	for _, v := range complete(base, vars) {
		fmt.Fprintf(&b, "export %s=%s\n", v.name, shellQuote(v.value))
	}
	fmt.Fprintf(&b, "unset %s\n", strings.Join(removed, " "))
	return b.String()
}

// complete joins to vars what depends on the environment there was.
func complete(base []string, vars []variable) []variable {
	vars = slices.Clone(vars)
	for i, v := range vars {
		if old := lookup(base, "PATH"); v.name == "PATH" && old != "" {
			vars[i].value += string(filepath.ListSeparator) + old
		}
	}
	if lookup(base, "HOLDFAST_CACHE") == "" {
		vars = append(vars, variable{"HOLDFAST_CACHE", "off"}) // sessions of a lab are of no use after it
	}
	names := []string{"NO_PROXY", "no_proxy"} // tools differ in which they read
	if runtime.GOOS == "windows" {
		names = names[:1]
	}
	for _, name := range names {
		hosts := "127.0.0.1,localhost"
		old := lookup(base, name)
		if old == "" {
			old = lookup(base, strings.ToUpper(name))
		}
		if old == "" {
			old = lookup(base, strings.ToLower(name))
		}
		if old != "" {
			hosts = old + "," + hosts
		}
		vars = append(vars, variable{name, hosts})
	}
	return vars
}

func lookup(env []string, name string) string {
	value := ""
	for _, entry := range env {
		if n, v, _ := strings.Cut(entry, "="); sameName(n, name) {
			value = v
		}
	}
	return value
}

func sameName(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(a, b)
}

// joinCommand writes args as the value of credential_process. SDKs either
// split it themselves or hand it to the shell: what it needs of quotes both
// read alike.
func joinCommand(args []string) (string, error) {
	words := make([]string, len(args))
	for i, a := range args {
		switch {
		case strings.ContainsAny(a, "\r\n"):
			return "", fmt.Errorf("%q cannot stand in an AWS config file: it holds a line break", a)
		case runtime.GOOS != "windows":
			words[i] = shellQuote(a)
		case strings.ContainsAny(a, " \t&^()"):
			words[i] = `"` + a + `"` // no path on Windows holds a quote
		default:
			words[i] = a
		}
	}
	return strings.Join(words, " "), nil
}

func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=+,@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
