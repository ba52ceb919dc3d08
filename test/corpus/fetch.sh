#!/bin/bash
# Downloads (never installs) the Debian packages that hold BPF objects, of three suites, into
# .cache/corpus-debs: the .debs, and list.tsv with suite, package, version and file of each.
#
# When all is there, nothing is downloaded and no network is needed.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/apt.sh
debs=$PWD/.cache/corpus-debs

suites='bookworm trixie sid'
packages=(xdp-tools xdp-tests libxdp1 udev-hid-bpf libbpftune0 opensnitch-ebpf-modules mimic bpfilter
  libbpf-tools systemd libsystemd-shared systemd-container systemd-tests suricata ir-keytable bpftop pwru
  network-manager nsd libknot13 libknot15 libknot16 pcp rsched rtc-testbench oar-common qemu-system-x86
  ceccomp golang-github-cilium-ebpf-dev)

if [[ -f $debs/list.tsv ]]; then exit; fi
mkdir -p "$debs"
apt=$(mktemp -d -t bpftoken-corpus-apt-XXXXXX)
trap 'rm -rf "$apt"' EXIT
echo "corpus: reading the package lists of $suites"
# shellcheck disable=SC2086 # one word for each suite
private_apt "$apt" $suites
# One call for all: each call of apt reads every list again, which takes seconds.
apt-cache madison "${packages[@]}" |
  awk -F ' *[|] *' -v suites="$suites" '
    BEGIN { n = split(suites, list, " "); for (i = 1; i <= n; i++) wanted[list[i]] = 1 }
    { sub(/^ */, "", $1); split($3, source, " "); suite = source[2]; sub("/.*", "", suite) }
    $3 ~ /Sources/ || !(suite in wanted) || (suite, $1) in seen { next }
    { seen[suite, $1] = 1; file = $2; gsub(":", "%3a", file); print suite "\t" $1 "\t" $2 "\t" $1 "_" file }
  ' >"$apt/wanted.tsv"

echo "corpus: downloading $(cut -f 4 "$apt/wanted.tsv" | sort -u | wc -l) packages"
cd "$debs"
cut -f 2,3 "$apt/wanted.tsv" | sort -u | tr '\t' '=' | xargs apt-get -qq download
while IFS=$'\t' read -r suite package version stem; do
  file=$(ls "$stem"_*.deb)
  printf '%s\t%s\t%s\t%s\n' "$suite" "$package" "$version" "$file"
done <"$apt/wanted.tsv" >list.new
mv list.new list.tsv # Last, because its presence says that all packages are there.
