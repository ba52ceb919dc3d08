#!/bin/bash
# Unmodified programs for the e2e tests, unpacked into .cache and not installed. Needs no root, fetches only
# what is missing, and leaves apt's own sources as they are:
#   .cache/host  bpftool and bubblewrap that run on this Debian as they are
#   .cache/podman  Podman with crun and runc, which runs on this Debian once it lies over /usr and /etc
#   .cache/sid   newest bpftool, iproute2, xdp-tools, veristat and systemd, with the libraries that they need
# Where that cannot be, .cache/why-not says why, in the words in which tests are then skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

HOST_PACKAGES=(bpftool/bookworm-backports bubblewrap/bookworm)
PODMAN_PACKAGES=({podman,crun,runc,conmon,uidmap}/bookworm golang-github-containers-{common,image}/bookworm
  {libgpgme11,libassuan0,libsubid4,libyajl2}/bookworm)
SID_PACKAGES=(bpftool iproute2 xdp-tools libxdp1 veristat busybox-static systemd)

cache=$PWD/.cache
apt=$cache/apt
mkdir -p "$cache"

give_up() {
  echo "$*" >"$cache/why-not"
  echo "fetch-debs: $*" >&2
  exit 1
}

# complete DIR PACKAGE...: whether DIR was made from just these packages.
complete() { [[ "$(cat "$cache/$1/.packages" 2>/dev/null)" == "${*:2}" ]]; }

# An apt of our own: its sources and state lie in .cache, everything else (proxies, keys) is the machine's.
private_apt() {
  local mirror
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
  [[ -n $mirror ]] || give_up 'no Debian mirror in the configuration of apt (try apt-get update)'
  mkdir -p "$apt"/{state/lists/partial,cache/archives/partial}
  : >"$apt/status" # Nothing is installed, so that every dependency is fetched.
  for suite in bookworm bookworm-backports sid; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$apt/sources.list"
  cat >"$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Dir::Log "$apt";
Acquire::Languages "none";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
  echo 'fetch-debs: reading package lists'
  run_apt -o APT::Update::Error-Mode=any update || give_up 'package lists cannot be fetched (no network?)'
}

run_apt() { apt-get -qq -c "$apt/apt.conf" "$@" >"$apt/log" 2>&1 || { tail -5 "$apt/log" >&2; return 1; }; }

# unpack DIR PACKAGE...: from the .debs that were fetched; in place only when complete.
unpack() {
  local new=$cache/$1.new
  rm -rf "$new" "${cache:?}/$1"
  mkdir -p "$new"/usr/{bin,sbin,lib,lib64}
  ln -s usr/{bin,sbin,lib,lib64} "$new"
  for deb in "$apt"/cache/archives/*.deb; do dpkg-deb --extract "$deb" "$new"; done
  echo "${*:2}" >"$new/.packages"
  mv "$new" "$cache/$1"
}

fetch() {
  local dir=$1
  shift
  echo "fetch-debs: fetching $*"
  rm -f "$apt"/cache/archives/*.deb
  case $dir in
    # Only these, the rest of their libraries is the machine's own.
    host | podman) (cd "$apt/cache/archives" && run_apt download "$@") ;;
    sid) run_apt install --yes --download-only --no-install-recommends -t sid "$@" ;;
  esac || give_up "packages cannot be fetched: $*"
  unpack "$dir" "$@"
}

if ! complete host "${HOST_PACKAGES[@]}" || ! complete podman "${PODMAN_PACKAGES[@]}" ||
  ! complete sid "${SID_PACKAGES[@]}"; then
  { command -v apt-get && command -v dpkg-deb; } >/dev/null || give_up 'this is no Debian: apt-get is missing'
  private_apt
  complete host "${HOST_PACKAGES[@]}" || fetch host "${HOST_PACKAGES[@]}"
  complete podman "${PODMAN_PACKAGES[@]}" || fetch podman "${PODMAN_PACKAGES[@]}"
  complete sid "${SID_PACKAGES[@]}" || fetch sid "${SID_PACKAGES[@]}"
  rm -rf "$apt"
fi
rm -f "$cache/why-not"
