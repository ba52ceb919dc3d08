#!/bin/bash
# Compiler and npm packages. With --addon only rebuilds the addon and the launcher from native/.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { command -v "$1" >/dev/null || missing+=("$2"); }

# node-gyp needs these; everything else comes from npm.
missing=()
need python3 python3
need gcc gcc
need g++ g++
if ((${#missing[@]})); then
  if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "setup: please install ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${missing[@]}"
fi

# Debian's Node brings its headers; without them node-gyp would download some.
if [[ -f /usr/include/node/node_api.h ]]; then export npm_config_nodedir=/usr; fi

if [[ ${1-} == --addon ]]; then
  npm_config_build_from_source=true npm run --silent install
else
  npm ci --no-audit --no-fund
fi
