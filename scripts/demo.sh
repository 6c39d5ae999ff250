#!/bin/sh
# The main job, from a key to a caller identity, in a made-up AWS: the AWS CLI
# asks who it is, its credential_process is holdfast.
set -eu
cd "$(dirname "$0")/.."

echo '$ holdfast-lab -- aws sts get-caller-identity' >&2
# The CLI reads AWS_ENDPOINT_URL_STS since 2.13; Debian's may be older.
# shellcheck disable=SC2016 # expanded inside the lab
exec bin/holdfast-lab --holdfast bin/holdfast -- sh -c '
	exec aws --endpoint-url "$AWS_ENDPOINT_URL_STS" sts get-caller-identity --output text --query Arn'
