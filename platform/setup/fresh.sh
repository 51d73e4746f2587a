#!/usr/bin/env bash
# Runs a command in a fresh clone of this checkout, in a fresh Debian 12 that holds nothing but
# git, make, Python 3.11 and sudo: what a newcomer starts from. Needs root and debootstrap.
#
#   sudo platform/setup/fresh.sh FOLDER make demo
#
# FOLDER keeps the system between runs (remove it for a truly cold one); the clone is of HEAD.
# Settings of package managers are handed in where they are set; HELIX_DEBIAN_MIRROR names a mirror.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
folder=${1:?usage: fresh.sh FOLDER COMMAND...}
shift
[ "$#" -gt 0 ] || set -- make test
[ "$(id -u)" = 0 ] || { echo "fresh.sh needs root: sudo $0 $folder $*" >&2; exit 1; }

settings=(PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT UV_DEFAULT_INDEX GOPROXY GOSUMDB
  HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy HELIX_DEBIAN_MIRROR)

if [ ! -e "$folder/etc/debian_version" ]; then
  debootstrap --variant=minbase --include=git,make,python3,sudo,ca-certificates bookworm "$folder" \
    ${HELIX_DEBIAN_MIRROR:+"$HELIX_DEBIAN_MIRROR"} >&2
  cp /etc/resolv.conf "$folder/etc/resolv.conf"
  # Certificates of a mirror of one's own are the machine's.
  cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
  [ ! -d /etc/apt/apt.conf.d ] || cp -n /etc/apt/apt.conf.d/*proxy* "$folder/etc/apt/apt.conf.d/" 2> /dev/null || true
fi

# A folder of another name than the checkout's, so that no path is taken for granted.
rm -rf "$folder/srv/newcomer"
# The checkout may belong to another user, which git accepts by a configuration file only.
trusting=$(mktemp)
trap 'rm -f "$trusting"' EXIT
git config --file "$trusting" safe.directory '*'
GIT_CONFIG_GLOBAL=$trusting git clone --quiet --no-hardlinks "$root" "$folder/srv/newcomer"
rm -f "$trusting"

given=()
for name in "${settings[@]}"; do
  [ -z "${!name:-}" ] || given+=("$name=${!name}")
done
if [ -n "${PIP_FIND_LINKS:-}" ] && [ -d "${PIP_FIND_LINKS:-}" ]; then mkdir -p "$folder$PIP_FIND_LINKS"; fi

# Mounts and processes of a namespace of their own: nothing is left behind when the command ends.
# pivot_root, because a sandbox cannot be set up inside a mere chroot.
exec unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
  folder=$1; shift
  mount --make-rprivate /
  mount --bind "$folder" "$folder"
  cd "$folder"
  mount -t proc proc proc
  mount --rbind /sys sys
  mount --rbind /dev dev
  mkdir -p .machine
  pivot_root . .machine
  umount -l .machine
  exec /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
' fresh "$(realpath "$folder")" ${given[@]+"${given[@]}"} bash -euo pipefail -c 'cd /srv/newcomer; exec "$@"' newcomer "$@"
