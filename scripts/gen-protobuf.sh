#!/bin/bash
# Makes the TypeScript of protocol buffers again: of NRI, from the api.proto that Debian ships of
# containerd/nri (Apache-2.0), of ttrpc, and of what the plugin and tests ask of the CRI. protoc and protoc-gen-es
# are fetched and not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

GENERATOR=@bufbuild/protoc-gen-es@$(node -p "require('./node_modules/@bufbuild/protobuf/package.json').version")

scratch=$(mktemp -d -t bpftoken-protobuf-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
give_up() { echo "gen-protobuf: $*" >&2 && exit 1; }

# fetch SUITE PACKAGE...: unpacked into $scratch/tree.
fetch() {
  mkdir -p "$scratch/$1" "$scratch/tree"
  lists "$scratch/$1" "$1"
  (cd "$scratch/$1" && APT_CONFIG=$scratch/$1/apt.conf quiet apt-get -qq download "${@:2}")
  for deb in "$scratch/$1"/*.deb; do dpkg-deb --extract "$deb" "$scratch/tree"; done
}
fetch bookworm protobuf-compiler libprotoc32 libprotobuf32
fetch sid golang-github-containerd-nri-dev
npm install --silent --no-save --ignore-scripts --prefix "$scratch/npm" "$GENERATOR"

# generate PROTO NAME DIR: NAME_pb.ts. An enum is no erasable syntax: it becomes an object of constants.
generate() {
  cp "$1" "$scratch/$2.proto"
  mkdir -p "$scratch/out"
  LD_LIBRARY_PATH=$(echo "$scratch"/tree/usr/lib/*-linux-gnu) "$scratch/tree/usr/bin/protoc" \
    --plugin="$scratch/npm/node_modules/.bin/protoc-gen-es" --es_opt=target=ts,import_extension=ts \
    --es_out="$scratch/out" -I "$scratch" "$scratch/$2.proto"
  node -e '
    const { readFileSync, writeFileSync } = require("node:fs")
    const text = readFileSync(process.argv[1], "utf8").replace(
      /export enum (\w+) \{([^}]*)\}/g,
      (_, name, body) => `export const ${name} = {${body.replace(/ = (\d+),/g, ": $1,")}} as const;\nexport type ${name} = (typeof ${name})[keyof typeof ${name}];`,
    )
    writeFileSync(process.argv[2], text)
  ' "$scratch/out/$2_pb.ts" "$3/$2_pb.ts"
}
generate "$scratch/tree/usr/share/gocode/src/github.com/containerd/nri/pkg/api/api.proto" nri src/nri/messages
generate src/nri/messages/ttrpc.proto ttrpc src/nri/messages
generate src/cri/messages/cri.proto cri src/cri/messages
generate test/helpers/cri/cri.proto cri test/helpers/cri
