#!/bin/bash
# Compiles native/ for every machine that the package is for, into prebuilds/linux-ARCH:
#   node.napi.glibc.node, node.napi.musl.node   the addon, one for each C library that Node is linked with
#   bpftoken-launch, bpftoken-executor, bpftoken-run, bpftoken-hook, bpftoken-runc, bpftoken-launchd,
#     bpftoken-hold   linked statically with musl: they run with any C library, or none
# clang compiles for all of them; headers and libraries are those of Debian packages, unpacked into
# .cache/native. What cannot be made is said, and left out; then the exit status is 1. For the
# machine that this is, there is its own compiler still: what that makes may need a C library as new
# as here.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

SUITE=bookworm
PACKAGES=(libc6 libc6-dev libgcc-12-dev linux-libc-dev musl musl-dev)
declare -A DEBIAN=([x64]=amd64 [arm64]=arm64) MACHINE=([x64]=x86_64 [arm64]=aarch64)

cache=$PWD/.cache/native
mkdir -p "$cache"
scratch=$(mktemp -d -t bpftoken-prebuilds-XXXXXX)
trap 'rm -rf "$scratch"' EXIT

say() { echo "prebuilds: $*" >&2; }

# Compiler and linker of one version, each looked for by itself: one may be there without the other.
find_compiler() {
  local version
  for version in -14 -15 -16 -17 -18 -19 -20 -21 ''; do
    if command -v clang$version >/dev/null && command -v ld.lld$version >/dev/null; then
      CLANG=clang$version
      return 0
    fi
  done
  [[ ${1-} != again ]] || return 1
  if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    say 'please install clang and lld'
    return 1
  fi
  say 'installing clang and lld'
  apt-get update -qq || true # An old list may do; if not, the next step says so.
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends clang-14 lld-14 >/dev/null ||
    DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends clang lld >/dev/null || return 1
  find_compiler again
}

# sysroot ARCH: headers and libraries in .cache/native/ARCH, fetched when they are not there.
sysroot() {
  local root=$cache/$1 apt
  [[ "$(cat "$root/.packages" 2>/dev/null)" != "${PACKAGES[*]}" ]] || return 0
  say "fetching headers and libraries for $1"
  apt=$scratch/$1
  (
    private_apt --arch "${DEBIAN[$1]}" "$apt" $SUITE && cd "$apt/archives" && apt-get -qq download "${PACKAGES[@]}"
  ) || return 1
  unpack "$root" "$apt"/archives/*.deb
  # musl brings no headers of the kernel, and must not see those of the other C library beside them.
  mkdir "$root/kernel"
  ln -s "../usr/include/linux" "../usr/include/asm-generic" "../usr/include/${MACHINE[$1]}-linux-gnu/asm" "$root/kernel"
  echo "${PACKAGES[*]}" >"$root/.packages"
}

# cross ARCH OUT: all four files.
cross() {
  local root=.cache/native/$1 machine=${MACHINE[$1]}
  local musl=$root/usr/lib/$machine-linux-musl gcc=$root/usr/lib/gcc/$machine-linux-gnu/12
  local clang_headers
  clang_headers=$($CLANG -print-resource-dir)/include
  local common="$CLANG -fuse-ld=lld -Wl,--build-id=none -Wl,-z,relro,-z,now -s"
  [[ $1 != arm64 ]] || common+=' -mno-outline-atomics'
  CC="$common --target=$machine-linux-gnu --sysroot=$root" LDFLAGS='-nostdlib -lc' \
    native/build.sh "$2" node.napi.glibc.node || return 1
  # Its own headers and files instead of those that the compiler would take.
  local include="-nostdinc -isystem $root/usr/include/$machine-linux-musl -isystem $clang_headers -isystem $root/kernel"
  # Its macros compare signed and unsigned numbers.
  local cc="$common --target=$machine-linux-musl $include -nostdlib"
  CC=$cc CFLAGS=-Wno-sign-compare LDFLAGS="-L$root/lib/$machine-linux-musl -lc" \
    native/build.sh "$2" node.napi.musl.node || return 1
  CC="$cc $musl/crt1.o $musl/crti.o" CFLAGS=-Wno-sign-compare \
    LDFLAGS="$musl/libc.a $gcc/libgcc.a $musl/libc.a $musl/crtn.o" native/build.sh "$2" - programs || return 1
  # It is in the programs now, and its licence wants to be told.
  cp "$root/usr/share/doc/musl-dev/copyright" "$2/musl-copyright.txt"
}

mkdir -p prebuilds
NODE_INCLUDE=$(node native/node-headers.cjs) || {
  say "Node's headers are missing (Debian: apt-get install libnode-dev)"
  exit 1
}
export NODE_INCLUDE
ours=$(uname -m)
status=0
compiler=yes
find_compiler || compiler=no
for arch in x64 arm64; do
  out=prebuilds/linux-$arch
  if [[ $compiler == yes ]] && sysroot $arch && cross $arch "$out.new"; then
    rm -rf "$out"
    mv "$out.new" "$out"
    continue
  fi
  rm -rf "$out.new"
  status=1
  if [[ $ours == "${MACHINE[$arch]}" ]]; then
    say "$out: no cross compiler; made with this machine's own compiler, for machines like it"
    native/build.sh "$out" node.napi.glibc.node programs
  else
    say "$out: not made"
  fi
done
exit $status
