#!/bin/bash
# Builds .cache/oracle/oracle from oracle.c with the libbpf of Debian sid and the C library that it
# wants, which are unpacked beside it and not installed. Builds again when oracle.c has changed;
# fetches only once.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/apt.sh
oracle=$PWD/.cache/oracle
root=$oracle/root
packages=(libbpf1 libbpf-dev libelf1t64 zlib1g libzstd1 libc6 linux-libc-dev)

if [[ ! -e $root ]]; then
  apt=$(mktemp -d -t bpftoken-oracle-apt-XXXXXX)
  trap 'rm -rf "$apt"' EXIT
  private_apt "$apt" sid
  rm -rf "$root.new"
  mkdir -p "$root.new"/usr/lib{,64}
  ln -s usr/lib usr/lib64 "$root.new"
  (cd "$apt/archives" && apt-get -qq download "${packages[@]/%//sid}")
  for deb in "$apt"/archives/*.deb; do dpkg-deb --extract "$deb" "$root.new"; done
  mv "$root.new" "$root"
fi

if [[ ! test/corpus/oracle.c -nt $oracle/oracle ]]; then exit; fi
libraries=$root/usr/lib/x86_64-linux-gnu
# Its own headers of libbpf go before those that this machine may have.
mkdir -p "$oracle/include"
ln -sfn "$root/usr/include/bpf" "$oracle/include/bpf"
# An old-style rpath, since it also counts for the libraries of libraries. The program itself is
# built with this machine's C library, older than the one it runs with.
gcc -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -I"$oracle/include" -idirafter "$root/usr/include" -o "$oracle/oracle.new" \
  test/corpus/oracle.c "$libraries/libbpf.so.1" -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags \
  -Wl,-rpath,"$libraries" -Wl,--dynamic-linker,"$libraries/ld-linux-x86-64.so.2"
mv "$oracle/oracle.new" "$oracle/oracle"
