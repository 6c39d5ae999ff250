#!/bin/sh
# elsewhere.sh KEY-FILE: takes the key file of a TPM to another TPM, that of a
# second lab, and succeeds if that one refuses it. The demo runs it on its key.
set -eu

if out=$(holdfast-lab --quiet --key tpm -- holdfast csr --private-key "$1" --subject CN=thief 2>&1); then
	echo "elsewhere: another TPM signs with $1" >&2
	exit 1
fi
case $out in
*TPM_RC_INTEGRITY*) echo "signing with a copy of the key file: refused by another TPM (TPM_RC_INTEGRITY)" >&2 ;;
*)
	echo "elsewhere: $out" >&2
	exit 1
	;;
esac
