# To be sourced: `private_apt DIR SUITE...` lets apt read those suites of Debian with lists and caches of its own
# in DIR, so that what this machine knows and installs stays as it is. The mirror is the one that apt already uses.

private_apt() {
  local dir=$1 mirror suite
  shift
  mkdir -p "$dir"/{lists/partial,archives/partial}
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
  if [[ -z $mirror ]]; then
    echo 'no Debian mirror in the configuration of apt (try apt-get update)' >&2
    return 1
  fi
  for suite in "$@"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
Dir::State::lists "$dir/lists";
Dir::Cache "$dir";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
  export APT_CONFIG=$dir/apt.conf
  apt-get -qq -o APT::Update::Error-Mode=any update
}
