# Packages of the distribution, for the scripts that source this: Debian's and Ubuntu's.

say() { echo "setup: $*"; }
fail() { echo "setup: error: $*" >&2; exit 2; }

# install_packages NAME... : through apt-get, as root or by sudo without a password; fails where
# it has no rights or no apt-get.
install_packages() {
  local sudo=""
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 1
    sudo="sudo -n"
  fi
  say "installing $*"
  # A stale list is worth a try: one broken source must not stop the rest.
  $sudo apt-get update -qq </dev/null || say "apt-get update failed; trying with the lists there are"
  $sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}
