#!/bin/sh
# Builds a program as it is shipped: build.sh OUTPUT PACKAGE. What is shipped,
# measured and checked for size all comes from here. GO, GOOS, GOARCH and VERSION
# are honoured.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go} output=$1 package=$2

cgo=0 # static
case $package in
./cmd/holdfast-pkcs11 | ./cmd/holdfast-lab) cgo=1 ;;
esac

ldflags='-s -w'
[ -z "${VERSION:-}" ] || ldflags="$ldflags -X main.version=$VERSION"
# Half of the default: what these programs wait for is the network and the key.
[ "$("$go" env GOARCH)" != amd64 ] || ldflags="$ldflags -funcalign=16"

# Code that runs once or twice in a run is not worth a copy at every call: an
# eighteenth of the program. Ciphers, hashes and the runtime keep theirs.
set --
for p in github.com/holdfast-iam/holdfast/... github.com/google/go-tpm/... github.com/spf13/... github.com/aws/... \
	fmt reflect crypto/tls crypto/x509; do
	set -- "$@" "-gcflags=$p=-l"
done

# holdfast speaks HTTP/1.1 only; HTTP/2 would add half a megabyte.
CGO_ENABLED=$cgo exec "$go" build -trimpath -tags nethttpomithttp2 -ldflags "$ldflags" "$@" -o "$output" "$package"
