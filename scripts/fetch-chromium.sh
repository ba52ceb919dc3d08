#!/bin/bash
# Debian's Chromium with the libraries and a font that it needs, unpacked into .cache/chromium and
# not installed: to look at the page with. Needs no root, and fetches only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh

PACKAGES=(chromium fonts-dejavu-core)

cache=$PWD/.cache
mkdir -p "$cache"

give_up() {
  echo "fetch-chromium: $*" >&2
  exit 1
}

if [[ "$(cat "$cache/chromium/.packages" 2>/dev/null)" != "${PACKAGES[*]}" ]]; then
  apt=$(mktemp -d -t bpftoken-chromium-apt-XXXXXX)
  trap 'rm -rf "$apt" "$cache/chromium.new"' EXIT
  echo 'fetch-chromium: reading package lists'
  lists "$apt" bookworm
  export APT_CONFIG=$apt/apt.conf
  echo "fetch-chromium: fetching ${PACKAGES[*]}"
  quiet apt-get -qq install --yes --download-only --no-install-recommends "${PACKAGES[@]}" ||
    give_up "packages cannot be fetched: ${PACKAGES[*]}"
  unpack "$apt/tree" "$apt"/archives/*.deb
  echo "${PACKAGES[*]}" >"$apt/tree/.packages"
  rm -rf "$cache/chromium.new" "$cache/chromium"
  mv "$apt/tree" "$cache/chromium.new"
  mv "$cache/chromium.new" "$cache/chromium"
fi
