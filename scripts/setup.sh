#!/bin/sh
# Installs what "make demo" or "make test" needs and this machine lacks, through
# apt: scripts/setup.sh demo|test
set -eu

missing=
need() { # need PACKAGE COMMAND...: the command tells whether the package is needed
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}

boto3() { python3 -c 'import boto3' || /usr/bin/python3 -c 'import boto3'; }

tpm2_provider() { find /usr/lib -path '*ossl-modules/tpm2.so' | grep -q .; }
tcti_swtpm() { find /usr/lib -name 'libtss2-tcti-swtpm.so*' | grep -q .; }

need awscli command -v aws
need gcc command -v gcc
need libc6-dev test -e /usr/include/stdlib.h
need libssl-dev test -e /usr/include/openssl/ssl.h # for the TPM simulator in holdfast-lab
need softhsm2 command -v softhsm2-util
case ${1:-} in
demo) ;;
test)
	need opensc command -v pkcs11-tool
	need swtpm command -v swtpm
	need swtpm-tools command -v swtpm_setup
	need tpm2-tools command -v tpm2_create
	need tpm2-openssl tpm2_provider
	need libtss2-tcti-swtpm0 tcti_swtpm
	need systemd test -x /lib/systemd/systemd-measure
	need nodejs command -v node
	need npm command -v npm
	need strace command -v strace
	need openssl command -v openssl
	need xxd command -v xxd
	need python3-boto3 boto3
	;;
*)
	echo "usage: scripts/setup.sh demo|test" >&2
	exit 2
	;;
esac

[ -n "$missing" ] || exit 0
echo "installing:$missing" >&2
if ! command -v apt-get >/dev/null; then
	echo "setup: this is no Debian machine: install by its own means:$missing" >&2
	exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
	as_root="sudo"
	if ! command -v sudo >/dev/null; then
		echo "setup: not root and no sudo: run as root: apt-get install$missing" >&2
		exit 1
	fi
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of packages
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "setup: apt-get install$missing failed" >&2
	exit 1
fi
