#!/bin/bash
# Unmodified programs for the e2e tests, unpacked into .cache and not installed. Needs no root,
# fetches only what is missing, and leaves apt's own sources as they are:
#   .cache/host  bpftool and bubblewrap that run on this Debian as they are
#   .cache/podman  Podman with crun and runc, which runs on this Debian once it lies over /usr and /etc
#   .cache/sid   newest bpftool, iproute2, xdp-tools, veristat and systemd, with the libraries that they need
# Where that cannot be, .cache/why-not says why, in the words in which tests are then skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

HOST_PACKAGES=(bpftool/bookworm-backports bubblewrap/bookworm)
PODMAN_PACKAGES=({podman,crun,runc,conmon,uidmap}/bookworm golang-github-containers-{common,image}/bookworm
  {libgpgme11,libassuan0,libsubid4,libyajl2}/bookworm)
SID_PACKAGES=(bpftool iproute2 xdp-tools libxdp1 veristat busybox-static systemd libseccomp2 libstdc++6)

cache=$PWD/.cache
mkdir -p "$cache"

give_up() {
  echo "$*" >"$cache/why-not"
  echo "fetch-debs: $*" >&2
  exit 1
}

# complete DIR PACKAGE...: whether DIR was made from just these packages.
complete() { [[ "$(cat "$cache/$1/.packages" 2>/dev/null)" == "${*:2}" ]]; }

# fetch DIR PACKAGE...: in place only when complete.
fetch() {
  local dir=$1
  shift
  echo "fetch-debs: fetching $*"
  rm -f "$apt"/archives/*.deb
  case $dir in
    # Only these, the rest of their libraries is the machine's own.
    host | podman) (cd "$apt/archives" && quiet apt-get -qq download "$@") ;;
    sid) quiet apt-get -qq install --yes --download-only --no-install-recommends -t sid "$@" ;;
  esac || give_up "packages cannot be fetched: $*"
  unpack "$apt/tree" "$apt"/archives/*.deb
  echo "$*" >"$apt/tree/.packages"
  rm -rf "$cache/$dir.new" "${cache:?}/$dir"
  mv "$apt/tree" "$cache/$dir.new"
  mv "$cache/$dir.new" "$cache/$dir"
}

if ! complete host "${HOST_PACKAGES[@]}" || ! complete podman "${PODMAN_PACKAGES[@]}" ||
  ! complete sid "${SID_PACKAGES[@]}"; then
  apt=$(mktemp -d -t bpftoken-debs-apt-XXXXXX)
  trap 'rm -rf "$apt" "$cache"/{host,podman,sid}.new' EXIT
  echo 'fetch-debs: reading package lists'
  lists "$apt" bookworm bookworm-backports sid
  export APT_CONFIG=$apt/apt.conf
  complete host "${HOST_PACKAGES[@]}" || fetch host "${HOST_PACKAGES[@]}"
  complete podman "${PODMAN_PACKAGES[@]}" || fetch podman "${PODMAN_PACKAGES[@]}"
  complete sid "${SID_PACKAGES[@]}" || fetch sid "${SID_PACKAGES[@]}"
fi
rm -f "$cache/why-not"
