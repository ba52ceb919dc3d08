#!/bin/bash
# Compiler and npm packages. With --addon only compiles what native/ holds.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1-} == --addon ]]; then exec node native/install.cjs --build; fi

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
node native/node-headers.cjs >/dev/null || missing+=(libnode-dev)
if ((${#missing[@]})); then
  if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "setup: please install ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${missing[@]}" >/dev/null
fi

echo 'setup: fetching npm packages' # npm itself is silent for as long as that takes.
npm ci --ignore-scripts --no-audit --no-fund
