#!/bin/bash
# Installs the package as a stranger would, from its tarball: scripts/install-package.sh PREFIX
#
# No script of the package runs, so all that is native must have come with it. Run before:
# make build prebuilds.
set -euo pipefail
prefix=$(realpath -m "$1")
cd "$(dirname "$0")/.."

arch=$(node -p process.arch)
if [[ ! -e prebuilds/linux-$arch/bpftoken-executor ]]; then
  echo "there is nothing prebuilt for linux-$arch (make prebuilds)" >&2
  exit 1
fi
if [[ -n "$(find native -name '*.[ch]' -newer "prebuilds/linux-$arch/bpftoken-executor")" ]]; then
  echo 'what is prebuilt is older than its sources (make prebuilds)' >&2
  exit 1
fi
mkdir -p "$prefix"
tarball=$prefix/$(npm pack --silent --ignore-scripts --pack-destination "$prefix")
npm install --silent --global --prefix "$prefix" --ignore-scripts --no-audit --no-fund \
  --prefer-offline --fetch-retries 1 --fetch-timeout 20000 "$tarball" || {
  echo 'npm cannot install the package: are those that it depends on within reach?' >&2
  exit 1
}
rm "$tarball"
