#!/bin/sh
# The main job, from a key to a caller identity, in a made-up AWS: the AWS CLI
# asks who it is, its credential_process is holdfast. KEY says where the key is:
# file (the default) or pkcs11, a SoftHSM token.
set -eu
cd "$(dirname "$0")/.."
KEY=${KEY:-file}

echo "\$ holdfast-lab --key $KEY -- aws sts get-caller-identity" >&2
# The CLI reads AWS_ENDPOINT_URL_STS since 2.13; Debian's may be older.
# shellcheck disable=SC2016 # expanded inside the lab
identity='aws --endpoint-url "$AWS_ENDPOINT_URL_STS" sts get-caller-identity --output text --query Arn'
case $KEY in
pkcs11*)
	# shellcheck disable=SC2016
	identity="bin/export /usr/lib/softhsm/libsofthsm2.so \"\$HOLDFAST_LAB_DIR/pin\" holdfast-lab device && $identity"
	go build -o bin/export ./scripts/export
	;;
esac
exec bin/holdfast-lab --key "$KEY" --holdfast bin/holdfast -- sh -c "$identity"
