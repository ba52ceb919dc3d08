#!/bin/bash
# Makes packages for Debian and Ubuntu, build/deb/bpftoken_VERSION_ARCH.deb, of what `make build
# prebuilds` made:
#   scripts/build-deb.sh [amd64|arm64]...
# The same sources make the same bytes: times are that of the last commit, or SOURCE_DATE_EPOCH.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

(($# > 0)) || set -- amd64 arm64
declare -A NODE_ARCH=([amd64]=x64 [arm64]=arm64)
version=$(node -p "require('./package.json').version")
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y package.json)}"
export SOURCE_DATE_EPOCH
scratch=$(mktemp -d -t bpftoken-deb-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir -p build/deb

# filled ARCH SIZE: a template of packaging/debian, on standard input, with what is known.
filled() {
  sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$1/" -e "s/@SIZE@/$2/" \
    -e "s/@DATE@/$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")/"
}

# What the package depends on, with what that depends on.
runtime_packages() {
  node -p "Object.entries(require('./package-lock.json').packages)
    .flatMap(([at, { dev }]) => (at.startsWith('node_modules/') && !dev ? [at.slice(13)] : [])).join(' ')"
}

# The programs of the package and of what it depends on, without what only developers read.
add_library() {
  local lib=$1/usr/lib/bpftoken prebuilt=prebuilds/linux-${NODE_ARCH[$2]} name
  mkdir -p "$lib/node_modules" "$lib/bpf" "$lib/$prebuilt"
  cp -R dist "$lib/"
  cp package.json "$lib/"
  cp bpf/{guard,inventory,recorder}.bpf.o "$lib/bpf/"
  cp "$prebuilt"/{node.napi.glibc.node,bpftoken-launch,bpftoken-executor,bpftoken-run,bpftoken-hook,bpftoken-runc,bpftoken-launchd,bpftoken-hold} "$lib/$prebuilt/"
  chmod 644 "$lib/$prebuilt"/*.node
  for name in $(runtime_packages); do
    if ! grep -q "^Files: usr/lib/bpftoken/node_modules/$name/\*$" packaging/debian/copyright; then
      echo "build-deb: packaging/debian/copyright does not name $name" >&2
      return 1
    fi
    mkdir -p "$(dirname "$lib/node_modules/$name")"
    cp -R "node_modules/$name" "$lib/node_modules/$name"
  done
  # Their licences are in the copyright file.
  find "$lib" -regextype posix-extended -type f \
    \( -regex '.*\.(map|md|ts|cts|mts|flow)' -o -iname 'license*' \) -delete
  # What no program reads: tests, examples, what is for browsers and for other loaders, files of
  # build tools.
  rm -rf "$lib"/node_modules/zod/src \
    "$lib"/node_modules/bintrees/{dist,examples,test,Makefile} \
    "$lib"/node_modules/tdigest/{specs,example.html,example.js,distributions.js,gruntfile.js}
  find "$lib/node_modules" -depth -mindepth 1 -name '.*' -exec rm -rf {} +
  find "$lib" -type d -empty -delete
  find "$lib" -name '*.js' -o -name '*.cjs' -o -name '*.mjs' -o -name '*.json' | xargs -d '\n' chmod 644
  sed -i '1s|^#!/usr/bin/env node$|#!/usr/bin/node|' "$lib"/dist/{cli,daemon,nri}/main.js
  sed -i '1{/^#!/d}' "$lib"/node_modules/*/bin.{js,mjs} 2>/dev/null || true
  chmod 755 "$lib"/dist/{cli,daemon,nri}/main.js "$lib/$prebuilt"/bpftoken-*
  # What `bpftoken init` writes.
  mkdir -p "$lib/examples"
  cp -R examples/starter "$lib/examples/"
  mkdir -p "$1/usr/bin"
  # It hands to Node what it does not do itself: see native/run/main.c.
  ln -s "../lib/bpftoken/$prebuilt/bpftoken-run" "$1/usr/bin/bpftoken"
  mkdir -p "$1/usr/sbin"
  ln -s ../lib/bpftoken/dist/daemon/main.js "$1/usr/sbin/bpftokend"
  ln -s ../lib/bpftoken/dist/nri/main.js "$1/usr/sbin/bpftoken-nri"
  ln -s "../lib/bpftoken/$prebuilt/bpftoken-launchd" "$1/usr/sbin/bpftoken-launchd"
}

# The daemon's units, and where its policies go: a folder that is empty.
add_service() {
  mkdir -p "$1/usr/lib/systemd/system" "$1/etc/bpftoken/policies" "$1/usr/lib/bpftoken/packaging"
  cp packaging/systemd/{bpftokend.{service,socket},bpftoken-nri.service,bpftoken-launchd.{service,socket}} "$1/usr/lib/systemd/system/"
  ln -s ../../systemd/system "$1/usr/lib/bpftoken/packaging/systemd"
}

add_documents() {
  local doc=$1/usr/share/doc/bpftoken
  mkdir -p "$doc"
  cp packaging/debian/copyright "$doc/"
  cp README.md SECURITY.md "$doc/"
  cp -R docs examples "$doc/"
  rm -r "$doc/examples/demo" # It is for a clone.
  cp packaging/bpftokend.yaml "$doc/examples/"
  gzip -9n <CHANGELOG.md >"$doc/CHANGELOG.md.gz"
  filled "$2" 0 <packaging/debian/changelog.in | gzip -9n >"$doc/changelog.gz"
  mkdir -p "$1/usr/share/lintian/overrides"
  cp packaging/debian/lintian-overrides "$1/usr/share/lintian/overrides/bpftoken"
}

# What the build made of the commands: man pages, and completions of shells.
add_generated() {
  local page name
  for page in build/man/*.[1-9]; do
    [[ -e $page ]] || continue
    mkdir -p "$1/usr/share/man/man${page##*.}"
    gzip -9n <"$page" >"$1/usr/share/man/man${page##*.}/$(basename "$page").gz"
  done
  while read -r name place; do
    [[ -e build/completions/$name ]] || continue
    mkdir -p "$1/usr/share/$(dirname "$place")"
    cp "build/completions/$name" "$1/usr/share/$place"
  done <<'PLACES'
bpftoken bash-completion/completions/bpftoken
_bpftoken zsh/vendor-completions/_bpftoken
bpftoken.fish fish/vendor_completions.d/bpftoken.fish
PLACES
}

add_control() {
  local control=$1/DEBIAN
  mkdir "$control"
  (cd "$1" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$control/md5sums"
  filled "$2" "$(du -sk --exclude=DEBIAN "$1" | cut -f1)" <packaging/debian/control.in >"$control/control"
  install -m 755 packaging/debian/{postinst,prerm,postrm} "$control/"
}

for arch in "$@"; do
  if [[ ! -e prebuilds/linux-${NODE_ARCH[$arch]}/node.napi.glibc.node ]]; then
    echo "build-deb: nothing is prebuilt for $arch (make prebuilds)" >&2
    exit 1
  fi
  tree=$scratch/$arch
  mkdir "$tree"
  add_library "$tree" "$arch"
  add_service "$tree"
  add_documents "$tree" "$arch"
  add_generated "$tree"
  add_control "$tree" "$arch"
  find "$tree" -print0 | xargs -0 touch -h -d "@$SOURCE_DATE_EPOCH"
  dpkg-deb --root-owner-group -Zxz --build "$tree" "build/deb/bpftoken_${version}_$arch.deb"
done
