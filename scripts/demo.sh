#!/bin/sh
# The main job, from a key to a caller identity, in a made-up AWS: the AWS CLI
# asks who it is, its credential_process is holdfast. KEY says where the key is:
# tpm (the default), a TPM simulator; file; or pkcs11, a SoftHSM token. Any other
# --key of holdfast-lab will do.
set -eu
cd "$(dirname "$0")/.."
KEY=${KEY:-tpm}

echo "\$ holdfast-lab --key $KEY -- aws sts get-caller-identity" >&2
# The CLI reads AWS_ENDPOINT_URL_STS since 2.13; Debian's may be older.
# shellcheck disable=SC2016 # expanded inside the lab
identity='aws --endpoint-url "$AWS_ENDPOINT_URL_STS" sts get-caller-identity --output text --query Arn'
case $KEY in
tpm | tpm:*)
	# shellcheck disable=SC2016
	identity="scripts/elsewhere.sh \"\$HOLDFAST_LAB_PRIVATE_KEY\" && $identity"
	;;
pkcs11*)
	# shellcheck disable=SC2016
	identity="bin/export /usr/lib/softhsm/libsofthsm2.so \"\$HOLDFAST_LAB_DIR/pin\" holdfast-lab device && $identity"
	go build -o bin/export ./scripts/export
	;;
esac
exec bin/holdfast-lab --key "$KEY" --holdfast bin/holdfast -- sh -c "$identity"
