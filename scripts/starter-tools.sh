#!/bin/bash
# What compiles examples/starter: prints the compiler's name, after installing it where it is
# missing. Exit status 3: it cannot be had.
set -euo pipefail

find_clang() { command -v clang || command -v clang-14; }
if ! find_clang >/dev/null || [[ ! -e /usr/include/bpf/bpf_helpers.h || ! -e /usr/include/linux/bpf.h ]] || ! command -v make >/dev/null; then
  if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo 'starter-tools: please install clang, make, libbpf-dev and linux-libc-dev' >&2
    exit 3
  fi
  echo 'starter-tools: installing clang-14, make, libbpf-dev and linux-libc-dev' >&2
  apt-get update -qq >&2 || true # An old list may do; if not, the next step says so.
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends \
    clang-14 make libbpf-dev linux-libc-dev >/dev/null || exit 3
fi
basename "$(find_clang)"
