#!/bin/bash
# What scripts/vm/vm.ts boots, from Debian packages that are unpacked into .cache/vm and not
# installed. Needs no root:
#   tools          QEMU and busybox, with the libraries that they need
#   systemd        a file system with a systemd that has BPF programs of its own, which Debian 12's has not
#   crun           a runtime of containers, with the libraries that this machine's programs do not need
#   kernel-6.1     a kernel without BPF tokens
#   kernel-6.12    the oldest long-term kernel with tokens
#   kernel-7       the newest
# A kernel is a folder with vmlinuz, config, version and modules. Nothing is fetched that is there;
# to get newer ones, remove .cache/vm. Where that cannot be, .cache/vm/why-not says why.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh
vm=$PWD/.cache/vm
mkdir -p "$vm"

KERNELS=(6.1 6.12 7)
# The versions that Debian gives them; -unsigned and -dbg are other packages. From 6.19 on an image
# is split in two.
declare -A IMAGES=(
  [6.1]='linux-image-6\.1\.[0-9]+-[0-9]+-cloud-amd64'
  [6.12]='linux-image-6\.12\.[0-9.]+\+deb12[0-9.]*-cloud-amd64'
  [7]='linux-binary-7\.[0-9.]+\+deb13[0-9.]*-cloud-amd64'
)

give_up() {
  echo "$*" >"$vm/why-not"
  echo "fetch-vm: $*" >&2
  exit 1
}

exec 9>"$vm/fetch-lock"
flock 9
missing=()
for name in tools systemd crun; do [[ -e $vm/$name ]] || missing+=("$name"); done
for kernel in "${KERNELS[@]}"; do [[ -e $vm/kernel-$kernel ]] || missing+=("$kernel"); done
if ((${#missing[@]} == 0)); then
  rm -f "$vm/why-not"
  exit
fi
[[ $(uname -m) == x86_64 ]] || give_up 'only x86-64 machines are emulated so far'

apt=$(mktemp -d -t bpftoken-vm-apt-XXXXXX)
trap 'rm -rf "$apt" "$vm"/*.new' EXIT
echo 'fetch-vm: reading package lists'
lists "$apt" bookworm bookworm-backports trixie-backports
export APT_CONFIG=$apt/apt.conf

fetch_tools() {
  quiet apt-get -qq install --yes --download-only --no-install-recommends -t bookworm-backports \
    qemu-system-x86 busybox-static || give_up 'QEMU cannot be fetched'
  unpack "$vm/tools" "$apt"/archives/*.deb
}

fetch_systemd() {
  lists "$apt/trixie" trixie
  APT_CONFIG=$apt/trixie/apt.conf quiet apt-get -qq install --yes --download-only --no-install-recommends \
    systemd libbpf1 || give_up 'systemd cannot be fetched'
  unpack "$apt/tree" "$apt"/trixie/archives/*.deb
  # What no program reads would cost memory and time at each boot.
  rm -r "$apt"/tree/usr/share/{doc,man,locale,perl5} "$apt"/tree/usr/lib/x86_64-linux-gnu/gconv
  mkdir -p "$apt"/tree/{dev,proc,run,sys,tmp,var,root}
  cp "$vm/tools/bin/busybox" "$apt/tree/bin/busybox"
  mv "$apt/tree" "$vm/systemd.new"
  mv "$vm/systemd.new" "$vm/systemd"
}

# It runs with the C library of the VM, which is this machine's: so it is that of the same Debian.
fetch_crun() {
  quiet apt-get -qq install --yes --download-only --no-install-recommends -t bookworm crun ||
    give_up 'crun cannot be fetched'
  rm "$apt"/archives/libc6_*.deb
  unpack "$apt/tree" "$apt"/archives/*.deb
  rm -rf "$apt"/tree/usr/share "$apt"/tree/usr/lib/*/*.a
  mv "$apt/tree" "$vm/crun.new"
  mv "$vm/crun.new" "$vm/crun"
}

fetch_kernel() {
  local image new=$vm/kernel-$1.new
  image=$(apt-cache pkgnames linux- | grep -E "^${IMAGES[$1]}\$" | sort -V | tail -1) || give_up "no kernel $1 in the suites"
  echo "fetch-vm: $image"
  local packages=("$image")
  local version=${image#linux-*-}
  [[ $image != linux-binary-* ]] || packages+=("${image/binary/modules}" "${image/binary/base}")
  (cd "$apt/archives" && quiet apt-get -qq download "${packages[@]}") || give_up "packages cannot be fetched: ${packages[*]}"
  unpack "$apt/tree" "$apt"/archives/*.deb
  rm -rf "$new"
  mkdir -p "$new/modules/lib/modules"
  mv "$(find "$apt/tree" -name 'vmlinuz*' -type f | head -1)" "$new/vmlinuz"
  mv "$(find "$apt/tree" -name "config-$version" -o -path "*/$version/config" -type f | head -1)" "$new/config"
  echo "$version" >"$new/version"
  mv "$apt/tree/usr/lib/modules/$version" "$new/modules/lib/modules/" 2>/dev/null ||
    mv "$apt/tree/lib/modules/$version" "$new/modules/lib/modules/"
  find "$new/modules" -name '*.ko.xz' -exec "$vm/tools/bin/busybox" unxz {} +
  "$vm/tools/bin/busybox" depmod -b "$new/modules" "$version"
  mv "$new" "$vm/kernel-$1"
}

for name in "${missing[@]}"; do
  rm -f "$apt"/archives/*.deb
  case $name in
    tools) echo 'fetch-vm: QEMU and busybox' && fetch_tools ;;
    systemd) echo 'fetch-vm: systemd' && fetch_systemd ;;
    crun) echo 'fetch-vm: crun' && fetch_crun ;;
    *) fetch_kernel "$name" ;;
  esac
done
rm -f "$vm/why-not"
