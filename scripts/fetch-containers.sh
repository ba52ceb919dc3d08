#!/bin/bash
# Container runtimes as Debian ships them, unpacked into .cache/containers/SUITE and not installed: a
# tree for each suite, which the tests enter as their root. Needs no root, fetches only what is
# missing, and leaves apt's own sources as they are.
#   scripts/fetch-containers.sh [TREE...]      bookworm, trixie, sid; without one: these three
# Further trees have a suite and what they are for: {trixie,sid}-engines have Podman and Docker;
# {trixie,sid}-sandboxes have systemd-nspawn, LXC, Incus and bubblewrap; sid-programs has compilers,
# with which scripts/build-witnesses.sh makes programs of others from Debian's sources;
# sid-tracers has programs that use eBPF (test/programs.ts).
# Where a tree cannot be had, .cache/containers/why-not-TREE says why, in the words in which tests
# are then skipped; the other trees are made all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

# What every tree has: the low-level runtimes, a shell, and unmodified programs that use tokens.
COMMON_PACKAGES=(runc crun busybox-static bpftool iproute2 libc-bin)
# containerd with what the CRI needs: plugins that give pods a network of their own.
CONTAINERD_PACKAGES=(containerd containernetworking-plugins)
# Containers that call no hook: root lends to them while they run.
SANDBOX_PACKAGES=(systemd systemd-container lxc incus-base bubblewrap busybox-static bpftool
  iproute2 xdp-tools libc-bin tar gzip)
# Go with cilium/ebpf, and Rust with libbpf-rs.
COMPILER_PACKAGES=(golang-go golang-github-cilium-ebpf-dev cargo rustc librust-libbpf-rs-dev pkgconf busybox-static libc-bin)
# Programs that use eBPF, each by its own loader.
TRACER_PACKAGES=(bpftrace libbpf-tools bpftool xdp-tools iproute2 veristat busybox-static libc-bin bpfilter
  knot nsd)
# Podman with what its pods, its checkpoints and its users' own containers need, and what Node needs,
# which is not of the tree. No network but "none" is set up, so netavark and its like are missing.
PODMAN_PACKAGES=(podman conmon uidmap catatonit criu libcriu2 tar golang-github-containers-{common,image} libstdc++6)
# Docker's daemon starts its own containerd.
DOCKER_PACKAGES=(docker.io docker-cli iptables)

cache=$PWD/.cache/containers
mkdir -p "$cache"

# packages TREE: what it is made of, and of that what depends on it.
packages() {
  case $1 in
    # Its containerd knows neither NRI nor pods with user namespaces.
    bookworm) echo "${COMMON_PACKAGES[@]}" ;;
    trixie | sid) echo "${COMMON_PACKAGES[@]} ${CONTAINERD_PACKAGES[@]}" ;;
    trixie-engines | sid-engines) echo "${COMMON_PACKAGES[@]} ${PODMAN_PACKAGES[@]} ${DOCKER_PACKAGES[@]}" ;;
    trixie-sandboxes | sid-sandboxes) echo "${SANDBOX_PACKAGES[@]}" ;;
    sid-tracers) echo "${TRACER_PACKAGES[@]}" ;;
    sid-programs) echo "${COMPILER_PACKAGES[@]}" ;;
    *) echo "fetch-containers: no such tree: $1" >&2 && exit 2 ;;
  esac
}

# files_of DIR: what the packages' own scripts would have made, as far as the runtimes look for it.
files_of() {
  local busybox=$1/usr/bin/busybox name
  for name in $("$busybox" --list); do
    [[ -e $1/usr/bin/$name || -e $1/usr/sbin/$name ]] || ln -s busybox "$1/usr/bin/$name"
  done
  for name in ip{,6}tables{,-restore,-save}; do
    [[ ! -e $1/usr/sbin/xtables-nft-multi ]] || ln -s xtables-nft-multi "$1/usr/sbin/$name"
  done
  mkdir -p "$1"/{etc,dev,proc,sys,run,tmp,mnt,opt,root,var/lib,var/log,var/tmp}
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
  printf '127.0.0.1 localhost\n' >"$1/etc/hosts"
  : >"$1/etc/resolv.conf"
}

# In a shell of its own, which give_up ends.
fetch_tree() {
  name=$1 suite=${1%%-*} tree=$cache/$1
  wanted=$(packages "$name")
  give_up() {
    echo "$*" >"$cache/why-not-$name"
    echo "fetch-containers: $name: $*" >&2
    exit 1
  }
  if [[ $(cat "$tree/.packages" 2>/dev/null) != "$wanted" ]]; then
    apt=$(mktemp -d -t bpftoken-containers-apt-XXXXXX)
    trap 'rm -rf "$apt" "$tree.new"' EXIT
    echo "fetch-containers: $name: fetching $wanted"
    lists "$apt" "$suite"
    # shellcheck disable=SC2086 # Words.
    APT_CONFIG=$apt/apt.conf quiet apt-get -qq install --yes --download-only --no-install-recommends $wanted ||
      give_up "packages cannot be fetched: $wanted"
    unpack "$apt/tree" "$apt"/archives/*.deb
    files_of "$apt/tree"
    echo "$wanted" >"$apt/tree/.packages"
    rm -rf "$tree.new" "$tree"
    mv "$apt/tree" "$tree.new"
    mv "$tree.new" "$tree"
  fi
  rm -f "$cache/why-not-$name"
}

if (($# == 0)); then set -- bookworm trixie sid; fi
failed=0
for tree in "$@"; do
  # Bash does not end at a failure inside what `||` or `if` looks at.
  set +e
  (set -e && fetch_tree "$tree")
  (($? == 0)) || failed=1
  set -e
done
exit $failed
