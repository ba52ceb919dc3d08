#!/bin/bash
# Whether the package is what its users' tools expect: publint on its fields and files, attw on its
# types.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tarball=$scratch/$(npm pack --silent --ignore-scripts --pack-destination "$scratch")
npx publint --strict "$tarball"
npx attw "$tarball"
