# To be sourced: `private_apt [--arch ARCH] DIR SUITE...` lets apt read those suites of Debian with
# lists, caches and a status of its own in DIR, so that what this machine knows and installs stays
# as it is. The mirror is the one that apt already uses. Nothing counts as installed, so that
# `install --download-only` fetches every dependency, into DIR/archives.

# The mirror of Debian that apt uses here.
debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }'
}

private_apt() {
  local arch dir mirror suite
  arch=$(dpkg --print-architecture 2>/dev/null) || true
  if [[ $1 == --arch ]]; then
    arch=$2
    shift 2
  fi
  dir=$1
  shift
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo 'this is no Debian: apt-get is missing' >&2
    return 1
  fi
  mkdir -p "$dir"/{lists/partial,archives/partial}
  : >"$dir/status"
  mirror=$(debian_mirror)
  if [[ -z $mirror ]]; then
    echo 'no Debian mirror in the configuration of apt (try apt-get update)' >&2
    return 1
  fi
  for suite in "$@"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "$dir";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
  export APT_CONFIG=$dir/apt.conf
  apt-get -qq -o APT::Update::Error-Mode=any update
}

# lists [--arch ARCH] DIR SUITE...: private_apt; where that fails, the caller's give_up says why.
# The caller exports APT_CONFIG=DIR/apt.conf, or gives it to single commands.
lists() {
  local error
  error=$(private_apt "$@" 2>&1) || give_up "package lists cannot be fetched: ${error%%$'\n'*}"
}

# quiet COMMAND...: its output only when it fails.
quiet() {
  local said
  said=$("$@" 2>&1) || { tail -5 <<<"$said" >&2; return 1; }
}

# unpack DIR DEB...: in place only when complete, without the folders that merged-/usr systems have
# as links.
unpack() {
  local dir=$1 deb
  shift
  rm -rf "$dir.new" "$dir"
  mkdir -p "$dir.new"/usr/{bin,sbin,lib,lib64}
  ln -s usr/{bin,sbin,lib,lib64} "$dir.new"
  for deb in "$@"; do dpkg-deb --extract "$deb" "$dir.new"; done
  mv "$dir.new" "$dir"
}
