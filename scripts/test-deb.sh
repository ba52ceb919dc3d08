#!/bin/bash
# Tests the packages that scripts/build-deb.sh makes, as root: that they are the same to the byte
# when made again, what lintian says, and how they are installed, run and removed in scratch systems
# of Debian, which are kept in .cache/systems. There is no mirror of Ubuntu in a Debian's apt:
# nothing is tried there.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

[[ $EUID -eq 0 ]] || { echo 'test-deb: needs root' >&2; exit 1; }
version=$(node -p "require('./package.json').version")
arch=$(dpkg --print-architecture)
package=build/deb/bpftoken_${version}_$arch.deb
systems=$PWD/.cache/systems
scratch=$(mktemp -d -t bpftoken-deb-test-XXXXXX)
trap 'rm -rf --one-file-system "$scratch"' EXIT

say() { echo "test-deb: $*" >&2; }
fail() { say "FAILED: $*"; exit 1; }

# expect WORDS FILE: a line of it has these words.
expect() { grep -q -- "$1" "$2" || fail "no \"$1\" in: $(cat "$2")"; }

need() {
  command -v "$1" >/dev/null && return
  say "installing $1"
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "$1" >/dev/null
}

# inside COMMAND...: in the scratch system, in namespaces of its own; its bpffs is one of its own,
# too. By pivot_root: whoever is in a chroot makes no user namespaces.
inside() {
  unshare --mount --pid --fork --propagation private env -u NODE_OPTIONS -u NODE_EXTRA_CA_CERTS sh -c '
    set -e
    root=$1
    shift
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount --rbind /sys sys
    mount -t tmpfs tmpfs sys/fs/bpf
    if [ -n "${GUARD-}" ]; then mkdir sys/fs/bpf/bpftoken; fi
    mount --rbind /dev dev
    pivot_root . .
    umount -l .
    cd /
    exec "$@"' sh "$scratch/root" "$@"
}

# system SUITE: a copy of a small Debian, in which apt has its lists.
system() {
  local suite=$1 mirror
  if [[ ! -e $systems/$suite ]]; then
    need debootstrap
    mirror=$(debian_mirror)
    say "making a small Debian $suite"
    mkdir -p "$systems"
    debootstrap --variant=minbase "$suite" "$scratch/new" "$mirror" >"$scratch/log" 2>&1 ||
      fail "debootstrap: $(tail -3 "$scratch/log")"
    mv "$scratch/new" "$systems/$suite"
  fi
  rm -rf --one-file-system "$scratch/root"
  cp -a "$systems/$suite" "$scratch/root"
  rm -f "$scratch/root/etc/resolv.conf"
  cp -L /etc/resolv.conf "$scratch/root/etc/resolv.conf" 2>/dev/null || true
  # How this machine reaches the mirror is how the scratch system does.
  find /etc/apt/apt.conf.d -name '*proxy*' -exec cp {} "$scratch/root/etc/apt/apt.conf.d/" \;
  cp "$package" "$scratch/root/bpftoken.deb"
  cp examples/policies/packet-counter.yaml "$scratch/root/policy.yaml"
  inside apt-get -qq update >"$scratch/log" 2>&1 || fail "apt-get update: $(cat "$scratch/log")"
}

install_package() {
  inside env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$@" >"$scratch/log" 2>&1
}

# Commands that read a file of the package each: BPF objects, what `init` writes, what `plan` tries
# a load with, the examples.
use_objects() {
  local examples=/usr/share/doc/bpftoken/examples
  local object=$examples/library/filter.bpf.o words
  inside bpftoken plan "$object" >"$scratch/planned.yaml" 2>"$scratch/said" || fail "plan: $(cat "$scratch/said")"
  expect 'was loaded on this kernel under just these rights' "$scratch/planned.yaml"
  inside bpftoken record -o /recorded.yaml -- bpftoken obj load "$object" >"$scratch/said" 2>&1 ||
    fail "record: $(cat "$scratch/said")"
  expect '- ringbuf # ' "$scratch/root/recorded.yaml"
  inside bpftoken run --policy /recorded.yaml -- /usr/bin/bpftoken obj load "$object" >"$scratch/said" 2>&1 ||
    fail "what was recorded is not enough: $(cat "$scratch/said")"
  sed "/- ringbuf # /d" "$scratch/root/recorded.yaml" >"$scratch/root/less.yaml"
  inside sh -c '
    bpftoken explain -- bpftoken run --policy /less.yaml -- /usr/bin/bpftoken obj load "$1"
    bpftoken explain -- bpftoken run --policy /recorded.yaml -- /usr/bin/bpftoken obj load "$1"
    unshare --user --map-root-user --mount --net sleep 1000 &
    sleep 1
    bpftoken explain --pid $! -- map_create ringbuf
    bpftoken delegate --pid $! --policy /less.yaml || exit
    bpftoken explain --pid $! -- map_create ringbuf
    bpftoken explain --pid $! -- map_create array
    kill $!' sh "$object" >"$scratch/said" 2>&1 || fail "explain: $(cat "$scratch/said")"
  for words in 'No call that asks for a right was refused' 'map_create ringbuf: refused (EPERM): no-delegation' \
    'map_create array: allowed'; do
    expect "^$words" "$scratch/said"
  done
  # Of the command, which is held until it has been looked at, and of the process.
  [[ $(grep -c '^map_create ringbuf: refused (EPERM): token-map-type' "$scratch/said") == 2 ]] ||
    fail "not both refusals are explained: $(cat "$scratch/said")"
  inside bpftoken simulate "$examples/scenarios/a2-token-create.yaml" >"$scratch/said" 2>&1 ||
    fail "simulate: $(cat "$scratch/said")"
  expect '^all 12 expectations are met$' "$scratch/said"
  inside bpftoken init /counter >"$scratch/said" 2>&1 || fail "init: $(cat "$scratch/said")"
  diff -r examples/starter "$scratch/root/counter" >&2 || fail 'init writes something else'
}

# The daemon lends once, by a policy in its folder. Here is no systemd: it runs as any program does.
use_daemon() {
  local state
  cp "$scratch/root/policy.yaml" "$scratch/root/etc/bpftoken/policies/"
  inside sh -c '
    bpftokend 2>/daemon.log &
    daemon=$!
    while [ ! -S /run/bpftoken/bpftokend.sock ]; do kill -0 $daemon || exit 1; sleep 0.1; done
    unshare --user --map-root-user --mount --net sleep 1000 &
    sleep 1
    bpftoken delegate --pid $! --policy packet-counter && grep -c delegate_cmds /proc/$!/mountinfo
    bpftoken revoke loan-1
    kill $! && kill $daemon && wait $daemon' >"$scratch/said" 2>&1 ||
    fail "the daemon: $(cat "$scratch/said" "$scratch/root/daemon.log")"
  expect '^loan-1: lent to process' "$scratch/said"
  expect '^1$' "$scratch/said"
  state=$(stat -c %a "$scratch/root/var/lib/bpftoken")
  [[ $state == 700 ]] || fail "the daemon's state is open: $state"
  for unit in service socket; do
    [[ -e $scratch/root/usr/lib/systemd/system/bpftokend.$unit ]] || fail "no bpftokend.$unit"
  done
  [[ -L $scratch/root/etc/systemd/system/sockets.target.wants/bpftokend.socket ]] || fail 'the socket is not enabled'
  expect '^ExecStart=/usr/bin/node /usr/lib/bpftoken/dist/daemon/main.js$' <(inside bpftokend --print-unit service)
  expect '^ExecStart=/usr/bin/node /usr/lib/bpftoken/dist/nri/main.js$' <(inside bpftoken-nri --print-unit)
}

# The plugin of containerd and the launcher are there, and off until root enables them.
use_other_services() {
  local unit
  for unit in bpftoken-nri.service bpftoken-launchd.service bpftoken-launchd.socket; do
    [[ -e $scratch/root/usr/lib/systemd/system/$unit ]] || fail "no $unit"
    [[ -z $(find "$scratch/root/etc/systemd" -name "$unit") ]] || fail "$unit is enabled"
  done
  inside sh -c '
    mkdir -p /run/bpftoken
    bpftoken-launchd 2>/launchd.log &
    launchd=$!
    while [ ! -S /run/bpftoken/launch.sock ]; do kill -0 $launchd || exit 1; sleep 0.1; done
    stat -c %a /run/bpftoken/launch.sock
    kill $launchd' >"$scratch/said" 2>&1 || fail "the launcher: $(cat "$scratch/said" "$scratch/root/launchd.log")"
  expect '^600$' "$scratch/said"
}

# What was installed runs, and leaves nothing but words when it is removed.
use_and_remove() {
  [[ "$(inside bpftoken --version)" == "$version" ]] || fail 'bpftoken --version'
  inside bpftoken policy check /policy.yaml >"$scratch/said" || fail "policy check: $(cat "$scratch/said")"
  expect 'risk low' "$scratch/said"
  inside bpftoken run --policy /policy.yaml -- /usr/bin/bpftoken token show >"$scratch/said" 2>&1 ||
    fail "run: $(cat "$scratch/said")"
  expect '^progs *xdp$' "$scratch/said"
  [[ -e $scratch/root/usr/share/doc/bpftoken/copyright ]] || fail 'no copyright file'
  use_objects
  use_daemon
  use_other_services
  inside apt-get remove -yqq bpftoken >"$scratch/said" 2>&1 || fail "remove: $(cat "$scratch/said")"
  ! grep -q guard "$scratch/said" || fail 'a guard is named where none is'
  [[ ! -e $scratch/root/usr/lib/bpftoken ]] || fail 'files stay'
  inside dpkg -i /bpftoken.deb >/dev/null
  GUARD=yes inside apt-get purge -yqq bpftoken >"$scratch/said" 2>&1 || fail "purge: $(cat "$scratch/said")"
  expect 'bpftoken guard remove' "$scratch/said"
  expect 'removing /var/lib/bpftoken' "$scratch/said"
  [[ ! -e $scratch/root/var/lib/bpftoken ]] || fail 'the state stays when the package is purged'
  expect '/etc/bpftoken stays' "$scratch/said"
  [[ -e $scratch/root/etc/bpftoken/policies/policy.yaml ]] || fail 'a policy of the administrator is gone'
  # What it offers is done: here there is no guard that could be taken out, only its folder, and
  # that is said.
  inside dpkg -i /bpftoken.deb >/dev/null
  GUARD=yes inside env BPFTOKEN_GUARD=remove dpkg --remove bpftoken >"$scratch/said" 2>&1 || true
  ! grep -q 'stays loaded' "$scratch/said" || fail 'the guard was to be removed'
}

say 'making it twice'
scripts/build-deb.sh >/dev/null
cp "$package" "$scratch/first.deb"
scripts/build-deb.sh "$arch" >/dev/null
cmp "$scratch/first.deb" "$package" || fail 'made again, it is not the same'

need lintian
say 'lintian'
suppressed=()
# Man pages come with the build, from the commands.
[[ -e build/man ]] || suppressed=(--suppress-tags no-manual-page)
for file in build/deb/*.deb; do
  lintian --allow-root --fail-on error,warning "${suppressed[@]}" "$file" || fail "lintian: $file"
done

say 'Debian 13, with its own Node'
system trixie
install_package /bpftoken.deb || fail "it is not installed: $(tail -5 "$scratch/log")"
use_and_remove

say 'Debian 12, whose Node is too old'
system bookworm
if install_package /bpftoken.deb; then fail 'installed with a Node that is too old'; fi
expect 'nodejs (>= 20.19)' "$scratch/log"
# The package of Node that is installed here, of what it installed; NodeSource has such.
if [[ "$(. /etc/os-release && echo "$VERSION_CODENAME")" == bookworm ]] &&
  dpkg --compare-versions "$(dpkg-query -W -f '${Version}' nodejs 2>/dev/null || echo 0)" ge 20.19; then
  tree=$scratch/node
  mkdir -p "$tree/DEBIAN"
  dpkg -L nodejs | grep -E '^/usr/(bin/node|share/doc/nodejs/copyright)$' |
    tar -C / -cf - -T - --transform 's|^/||' 2>/dev/null | tar -C "$tree" -xf -
  dpkg -s nodejs | grep -E '^(Package|Version|Architecture|Maintainer|Depends|Description):' >"$tree/DEBIAN/control"
  dpkg-deb -Znone --build "$tree" "$scratch/root/nodejs.deb" >/dev/null
  install_package /nodejs.deb /bpftoken.deb || fail "it is not installed: $(tail -5 "$scratch/log")"
  use_and_remove
  say 'Debian 12 runs it with a newer Node'
else
  say 'SKIPPED: there is no newer Node for Debian 12 on this machine'
fi
say 'passed'
