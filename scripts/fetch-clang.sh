#!/bin/bash
# Debian sid's clang, which knows what that of this machine does not (arenas, jump tables), unpacked into .cache/clang and
# not installed. Fetches only once. .cache/clang/clang and .cache/clang/strip run it with its own libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh
VERSION=22
clang=$PWD/.cache/clang
if [[ -x $clang/clang ]]; then exit; fi
apt=$(mktemp -d -t bpftoken-clang-apt-XXXXXX)
trap 'rm -rf "$apt"' EXIT
private_apt "$apt" sid
# The libraries that these two need, and none of what makes programs for this machine.
quiet apt-get -qq install --yes --download-only --no-install-recommends -t sid \
  clang-$VERSION llvm-$VERSION libbpf-dev linux-libc-dev
rm -f "$apt"/archives/{gcc,g++,cpp,libgcc-*-dev,libstdc++-*-dev,binutils,llvm-*-dev,perl,python}*.deb
unpack "$clang.tree" "$apt"/archives/*.deb
mkdir -p "$clang.new"
mv "$clang.tree" "$clang.new/root"
libraries=root/usr/lib/x86_64-linux-gnu
for tool in clang llvm-strip; do
  cat >"$clang.new/${tool#llvm-}" <<RUN
#!/bin/bash
here=\$(dirname "\$0")
exec "\$here/$libraries/ld-linux-x86-64.so.2" --library-path "\$here/$libraries:\$here/root/usr/lib/llvm-$VERSION/lib" \\
  "\$here/root/usr/lib/llvm-$VERSION/bin/$tool" "\$@"
RUN
  chmod +x "$clang.new/${tool#llvm-}"
done
mv "$clang.new" "$clang"
