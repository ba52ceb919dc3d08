#!/bin/bash
# Downloads (never installs) the Debian packages that hold BPF objects, of three suites, into .cache/corpus-debs:
# the .debs, and list.tsv with suite, package, version and file of each.
#
# The mirror is the one that apt already uses. Lists and caches are private: what this machine knows and
# installs does not change. When all is there, nothing is downloaded and no network is needed.
set -euo pipefail
cd "$(dirname "$0")/../.."
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
mkdir -p "$apt"/{lists/partial,archives/partial}

mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
  awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
if [[ -z $mirror ]]; then
  echo 'corpus: no Debian mirror in the configuration of apt (try apt-get update)' >&2
  exit 1
fi
for suite in $suites; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$apt/sources.list"
cat >"$apt/apt.conf" <<CONF
Dir::State::lists "$apt/lists";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
export APT_CONFIG=$apt/apt.conf

echo "corpus: reading the package lists of $suites"
apt-get -qq -o APT::Update::Error-Mode=any update
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
