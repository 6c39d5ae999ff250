#!/bin/sh
# Builds holdfast without cgo for every platform it is shipped for, and checks
# that the Linux binary is static.
set -eu
cd "$(dirname "$0")/.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for target in linux/amd64 linux/arm64 linux/arm darwin/arm64 windows/amd64; do
	os=${target%/*} arch=${target#*/}
	GOOS=$os GOARCH=$arch scripts/build.sh "$out/holdfast-$os-$arch" ./cmd/holdfast
	echo "$target: $(wc -c <"$out/holdfast-$os-$arch") bytes"
done
# A dynamic program names its loader in a PT_INTERP segment and its libraries in
# a dynamic section. go tool nm cannot tell in a stripped binary; readelf can.
for arch in amd64 arm64 arm; do
	if readelf -lW "$out/holdfast-linux-$arch" | grep -qE 'INTERP|DYNAMIC'; then
		echo "holdfast-linux-$arch is not static" >&2
		exit 1
	fi
done
echo "linux binaries are static"
