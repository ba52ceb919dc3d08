#!/bin/bash
# Compiles the BPF C of the repository; the objects lie beside it. With --check compares instead,
# and says what differs. Exit status 3: there is no compiler, and it cannot be installed. The
# compiler is Debian's clang 14, so that everybody's objects are the same to the byte.
# What it does not know yet is in test/fixtures/modern, for the clang of Debian sid
# (scripts/fetch-clang.sh): it moves on, so these are not compared.
set -euo pipefail
cd "$(dirname "$0")/.."

CLANG=clang-14
STRIP=llvm-strip-14
# Each by itself: `command -v` is content with one of several.
if ! command -v $CLANG >/dev/null || ! command -v $STRIP >/dev/null; then
  if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "build-bpf: please install clang-14 and llvm-14" >&2
    exit 3
  fi
  echo 'build-bpf: installing clang-14 and llvm-14' >&2
  apt-get update -qq || true # An old list may do; if not, the next step says so.
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends clang-14 llvm-14 >/dev/null || exit 3
fi

out=
if [[ ${1-} == --check ]]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
status=0
for source in bpf/*.bpf.c test/fixtures/*.bpf.c test/fixtures/linked/*.bpf.c examples/library/*.bpf.c; do
  object=${source%.c}.o
  made=${out:+$out/}$(basename "$object")
  [[ -n $out ]] || made=$object
  # Paths in the debug information are relative, or it would differ from place to place.
  $CLANG -g -O2 -target bpfel -mcpu=v3 -Wall -Werror -Wno-unused-variable -Wno-unused-function \
    -fdebug-compilation-dir=. -c "$source" -o "$made"
  # Types stay, DWARF goes.
  $STRIP --strip-debug "$made"
  if [[ -n $out ]] && ! cmp -s "$made" "$object"; then
    echo "build-bpf: $object is not what $source compiles to: run scripts/build-bpf.sh" >&2
    status=1
  fi
done
if [[ -z $out ]]; then
  if [[ -x .cache/clang/clang ]]; then
    # For those that are about libbpf's own headers.
    headers=.cache/clang/root/usr/include
    for source in test/fixtures/modern/*.bpf.c; do
      object=${source%.c}.o
      .cache/clang/clang -isystem $headers -isystem $headers/x86_64-linux-gnu -g -O2 -target bpfel -mcpu=v4 -Wall -Werror -Wno-unused-variable -fdebug-compilation-dir=. \
        -c "$source" -o "$object"
      .cache/clang/strip --strip-debug "$object"
    done
  else
    echo 'build-bpf: test/fixtures/modern is left as it is: run scripts/fetch-clang.sh for its compiler' >&2
  fi
fi
exit $status
