#!/bin/bash
# Programs on cilium/ebpf and libbpf-rs (test/fixtures/witnesses), built offline from Debian's
# sources with Debian's compilers into .cache/witnesses: in the tree that scripts/fetch-containers.sh
# unpacks as sid-programs, which is a root of its own for that. Needs root, and only if something has
# changed. Where they cannot be had, .cache/witnesses/why-not says why.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$PWD/.cache/containers/sid-programs
sources=$PWD/test/fixtures/witnesses
made=$PWD/.cache/witnesses
mkdir -p "$made"

give_up() {
  echo "$*" >"$made/why-not"
  echo "build-witnesses: $*" >&2
  exit 1
}

# state: of all that they are made from.
state() { sha256sum "$sources"/*.{go,rs} "$0" "$tree/.packages" 2>/dev/null | sha256sum; }

if [[ -e $made/state && $(cat "$made/state") == "$(state)" ]]; then
  rm -f "$made/why-not"
  exit
fi
scripts/fetch-containers.sh sid-programs ||
  give_up "no compilers: $(cat .cache/containers/why-not-sid-programs 2>/dev/null)"
((EUID == 0)) || give_up 'needs root, for a root directory with the compilers'

# The network is out of reach: nothing but Debian's sources can be built in.
# $1: the tree, $2: the sources, $3: where the programs go.
build='set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/{tree,upper,work,root}
mount --bind "$1" /mnt/tree
mount -t overlay -o lowerdir=/mnt/tree,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mkdir -p sources made
mount --bind "$2" sources
mount --bind "$3" made
mount -t proc proc proc
mount --rbind /dev dev
exec env -i PATH=/usr/bin:/usr/sbin HOME=/root chroot . /usr/bin/busybox sh -ec "$4"'

go='GO111MODULE=off GOPATH=/usr/share/gocode CGO_ENABLED=0 GOFLAGS=-trimpath \
  go build -o /made/cilium-ebpf /sources/cilium-ebpf.go'

# `cc` is a choice of the machine (update-alternatives), which a tree has not.
rust='mkdir -p /root/agent/src
cd /root/agent
cp /sources/libbpf-rs.rs src/main.rs
cat >Cargo.toml <<END
[package]
name = "libbpf-rs-witness"
version = "1.0.0"
edition = "2021"
[dependencies]
libbpf-rs = "*"
END
mkdir .cargo
cat >.cargo/config.toml <<END
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
[build]
jobs = 2
END
export CC=gcc CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=gcc
cargo build --offline --quiet
cp target/debug/libbpf-rs-witness /made/libbpf-rs'

for language in go rust; do
  echo "build-witnesses: $language"
  said=$(nice unshare --mount --net --ipc bash -c "$build" bash "$tree" "$sources" "$made" "${!language}" 2>&1) || {
    tail -20 <<<"$said" >&2
    give_up "the program in $language cannot be built: ${said##*$'\n'}"
  }
done
# changelog PACKAGE: which version it is.
changelog() { zcat "$tree/usr/share/doc/$1/changelog.Debian.gz" | sed -nE '1s/^\S+ \(([^)]*)\).*/\1/p'; }
cat >"$made/versions" <<END
cilium/ebpf $(changelog golang-github-cilium-ebpf-dev)
libbpf-rs $(changelog librust-libbpf-rs-dev)
END
state >"$made/state"
rm -f "$made/why-not"
