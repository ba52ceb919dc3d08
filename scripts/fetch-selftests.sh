#!/bin/bash
# The kernel's own BPF programs, of the newest kernel that Debian has sources of, compiled into .cache/selftests:
#   tree    tools/testing/selftests/bpf of Debian sid's linux-source, and what it includes
#   objects progs/*.c, each compiled by sid's clang (fetch-clang.sh) with the types of .cache/btf's newest kernel
# Needs no root, fetches only once, and compiles only what is missing. Where that cannot be, .cache/selftests/why-not
# says why, in the words in which tests are then skipped. .cache/selftests/failed has what did not compile, and why.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

cache=$PWD/.cache/selftests
tree=$cache/tree
objects=$cache/objects
mkdir -p "$cache"

give_up() {
  echo "$*" >"$cache/why-not"
  echo "fetch-selftests: $*" >&2
  exit 1
}

fetch_tree() {
  local package archive
  apt=$(mktemp -d -t bpftoken-selftests-apt-XXXXXX)
  trap 'rm -rf "$apt" "$tree.new"' EXIT
  echo 'fetch-selftests: reading package lists'
  APT_CONFIG=$apt/apt.conf lists "$apt" sid
  export APT_CONFIG=$apt/apt.conf
  # `linux-source` depends on the newest one by its version.
  package=$(apt-cache depends --important linux-source | awk '$1 == "Depends:" { print $2; exit }')
  [[ $package == linux-source-* ]] || give_up "Debian sid has no linux-source"
  echo "fetch-selftests: fetching $package"
  (cd "$apt/archives" && quiet apt-get -qq download "$package/sid") || give_up "$package cannot be fetched"
  archive=usr/src/$package.tar.xz
  mkdir -p "$tree.new"
  # Tar finds the parts that it does not know by their prefix.
  dpkg-deb --fsys-tarfile "$apt"/archives/"$package"_*.deb | tar -x --to-stdout "./$archive" |
    tar -xJ -C "$tree.new" --strip-components=1 --wildcards \
      '*/tools/testing/selftests/bpf/*' '*/tools/lib/bpf/*' '*/tools/include/*' '*/include/uapi/*' '*/scripts/bpf_doc.py' ||
    give_up "$package cannot be unpacked"
  echo "$package" >"$tree.new/.package"
  rm -rf "$tree"
  mv "$tree.new" "$tree"
}

# Headers as libbpf installs them, and types of the newest kernel that we have some of.
make_headers() {
  local btf include=$cache/include.new
  btf=$(find .cache/btf -name '*.btf' 2>/dev/null | sort -V | tail -1)
  [[ -n $btf ]] || btf=/sys/kernel/btf/vmlinux
  [[ -r $btf ]] || give_up 'there are no types of a kernel: run make oracle'
  [[ -x .cache/sid/usr/sbin/bpftool ]] || give_up 'bpftool of Debian sid is missing: run make debs'
  command -v python3 >/dev/null || give_up 'python3 is missing, which makes bpf_helper_defs.h'
  rm -rf "$include" "$cache/include"
  mkdir -p "$include/bpf"
  cp "$tree"/tools/lib/bpf/*.h "$include/bpf"
  python3 "$tree/scripts/bpf_doc.py" --header --file "$tree/tools/include/uapi/linux/bpf.h" >"$include/bpf/bpf_helper_defs.h"
  sid_bpftool btf dump file "$btf" format c >"$include/vmlinux.h"
  echo "$btf" >"$include/types-of"
  mv "$include" "$cache/include"
}

sid_bpftool() {
  local sid=$PWD/.cache/sid libraries
  libraries=$sid/usr/lib/x86_64-linux-gnu
  "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$sid/usr/sbin/bpftool" "$@"
}

# compile SOURCE OBJECT: as tools/testing/selftests/bpf/Makefile does it.
compile() {
  local bpf=$tree/tools/testing/selftests/bpf
  # Run by its loader, clang does not find its own headers.
  local resources=("$llvm"/usr/lib/llvm-*/lib/clang/*)
  local flags=(-g -D__TARGET_ARCH_x86 -mlittle-endian
    -I"$cache/include" -I"$bpf" -I"$tree/tools/include/uapi" -I"$tree/tools/include" -I"$bpf/libarena/include"
    -resource-dir "${resources[0]}" -idirafter "$llvm/usr/include" -idirafter "$llvm/usr/include/x86_64-linux-gnu"
    -std=gnu11 -fno-strict-aliasing -fms-extensions -w -O2 --target=bpf)
  (cd "$bpf" && "$clang" "${flags[@]}" -mcpu=v3 -c "$1" -o "$2.new") && mv "$2.new" "$2"
}

if [[ ! -e $tree/.package ]]; then fetch_tree; fi
scripts/fetch-clang.sh || give_up "clang of Debian sid cannot be fetched"
if [[ ! -e $cache/include ]]; then make_headers; fi

clang=$PWD/.cache/clang/clang
llvm=$PWD/.cache/clang/root
export -f compile
export tree cache clang llvm
mkdir -p "$objects"
compile_one() {
  local source=$1 object=$2
  [[ ! -e $object && ! -e $object.why ]] || return 0
  # Of one that was interrupted nothing is kept: it is compiled the next time.
  compile "$source" "$object" 2>"$object.why.new" || mv "$object.why.new" "$object.why"
  rm -f "$object.new" "$object.why.new"
}
export -f compile_one
for source in "$tree"/tools/testing/selftests/bpf/progs/*.c; do
  printf '%s\0%s\0' "$source" "$objects/$(basename "$source" .c).bpf.o"
done | nice xargs -0 -n 2 -P "$(nproc)" bash -c 'compile_one "$@" || :' _
rm -f "$cache/why-not"
echo "fetch-selftests: $(find "$objects" -name '*.o' | wc -l) objects of $(cat "$tree/.package")," \
  "$(find "$objects" -name '*.why' | wc -l) sources do not compile alone"
