#!/bin/bash
# Brings the types of kernels that do not run here into .cache/btf/VERSION.btf: the kernel packages
# of Debian are downloaded, not installed, and foreign-btf.ts takes .BTF out of them. Does nothing
# for what is there already.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/apt.sh
btf=$PWD/.cache/btf

if [[ -e $btf/complete ]]; then exit; fi
missing=()
for tool in xz:xz-utils zstd:zstd lz4:lz4; do command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}"); done
if ((${#missing[@]})); then
  # Kernels are compressed, each in its own way.
  echo "foreign-btf: installing ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${missing[@]}" >/dev/null
fi
mkdir -p "$btf"
work=$(mktemp -d -t bpftoken-btf-XXXXXX)
trap 'rm -rf "$work"' EXIT
private_apt "$work" bookworm trixie trixie-backports sid

# newest PATTERN: of the packages whose names fit, the one with the highest version in its name.
newest() { apt-cache pkgnames linux- | grep -E "^$1\$" | sort -V | tail -1; }

# From 6.19 on the kernel itself is in a package of its own.
old=$(newest 'linux-image-6\.1\.[0-9]+-[0-9]+-cloud-amd64')
middle=$(newest 'linux-image-6\.12\.[0-9]+(\+deb[0-9]+(\+[0-9]+)?)?-cloud-amd64')
new=$(newest 'linux-binary-7\.[0-9.]+(\+deb[0-9]+(\+[0-9]+)?)?-cloud-amd64')
for package in $old $middle $new; do
  echo "foreign-btf: $package"
  rm -rf "$work/tree" "$work"/archives/*.deb
  (cd "$work/archives" && apt-get -qq download "$package")
  dpkg-deb --extract "$work"/archives/*.deb "$work/tree"
  image=$(find "$work/tree" -name 'vmlinuz*' -type f | head -1)
  node --import tsx test/corpus/foreign-btf.ts "$image" "$btf/$(sed -E 's/linux-(image|binary)-//; s/-cloud-amd64//' <<<"$package").btf"
done
touch "$btf/complete"
