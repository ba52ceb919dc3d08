#!/bin/bash
# An arm64 Node and what emulates it, from Debian packages that are unpacked into .cache/arm64 and
# not installed: for the tests of what is prebuilt. Needs no root. Where that cannot be,
# .cache/arm64-why-not says why.
#   qemu   qemu-aarch64-static, which runs here
#   root   Debian 13's Node with the libraries that it needs
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

cache=$PWD/.cache
if [[ -e $cache/arm64/root ]]; then exit; fi
mkdir -p "$cache"
apt=$(mktemp -d -t bpftoken-arm64-apt-XXXXXX)
trap 'rm -rf "$apt" "$cache/arm64.new"' EXIT

give_up() {
  echo "$*" >"$cache/arm64-why-not"
  echo "fetch-arm64: $*" >&2
  exit 1
}

# download DIR COMMAND...: what apt fetches lies in DIR/archives.
download() {
  (export APT_CONFIG=$1/apt.conf && cd "$1/archives" && quiet apt-get -qq "${@:2}") ||
    give_up "packages cannot be fetched: ${*:2}"
}

[[ $(uname -m) == x86_64 ]] || give_up 'only x86-64 machines emulate arm64 so far'
echo 'fetch-arm64: Node for arm64, and QEMU'
lists "$apt/host" bookworm
lists --arch arm64 "$apt/arm64" trixie
download "$apt/host" download qemu-user-static
download "$apt/arm64" install --yes --download-only --no-install-recommends nodejs
rm -rf "$cache/arm64.new" "$cache/arm64"
mkdir "$cache/arm64.new"
dpkg-deb --extract "$apt"/host/archives/qemu-user-static_*.deb "$apt/qemu"
mv "$apt/qemu/usr/bin/qemu-aarch64-static" "$cache/arm64.new/"
unpack "$cache/arm64.new/root" "$apt"/arm64/archives/*.deb
mv "$cache/arm64.new" "$cache/arm64"
rm -f "$cache/arm64-why-not"
