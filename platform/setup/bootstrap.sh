#!/usr/bin/env bash
# Set-up of a checkout, safe to run again: Debian packages, the Python environment, cosign and olareg.
# `bootstrap.sh tests` also installs what only the tests need, `bootstrap.sh cluster` what `helix cluster` needs.
#
# Packages come from the machine's own package managers and their settings. Python
# distributions are those of requirements/host.lock, by SHA-256; Go tools those of
# platform/tools, by checksum. Everything but the packages lies under .helix/.
# A stamp over all that steers the set-up makes the second run a matter of milliseconds.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
state=$root/.helix
venv=$state/venv
lock=$root/requirements/host.lock
stamp=$state/setup.stamp
export HELIX_STATE=$state

say() { printf 'set-up: %s\n' "$*" >&2; }
fail() { say "$1"; say "mend it with: $2"; exit 1; }

# Command → the package that brings it. runc lies in /usr/sbin, which not every PATH holds.
commands="git:git make:make curl:curl jq:jq nix:nix-bin bwrap:bubblewrap runc:runc umoci:umoci skopeo:skopeo"
# What only the tests need: a browser, another machine's processor, and what varies and compares builds.
if [ "${1:-}" = tests ]; then
  commands="$commands chromium:chromium strace:strace qemu-x86_64:qemu-user diffoscope:diffoscope-minimal faketime:faketime"
  commands="$commands disorderfs:disorderfs"
fi
# What a cluster is built and run with, besides what it brings itself.
if [ "${1:-}" = cluster ]; then
  commands="$commands ip:iproute2 nft:nftables redis-server:redis-server gpg:gpg gcc:gcc pkg-config:pkg-config"
  headers="/usr/include/seccomp.h:libseccomp-dev /usr/include/stdio.h:libc6-dev"
fi
PATH=$PATH:/usr/sbin:/sbin
# The environment that this makes anew must not be made with its own Python.
PATH=$(tr : '\n' <<< "$PATH" | grep -vxF "$venv/bin" | paste -sd:)

missing_packages() {
  local pair
  for pair in $commands; do
    command -v "${pair%%:*}" > /dev/null || echo "${pair##*:}"
  done
  for pair in ${headers:-}; do
    [ -e "${pair%%:*}" ] || echo "${pair##*:}"
  done
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  # A Python that cannot make environments is of no use here; Debian keeps that in packages of its own.
  find_python > /dev/null || printf '%s\n' python3.11 python3.11-venv
}

# A Python 3.11 that can make environments. Version managers leave commands about that start nothing.
find_python() {
  local candidate
  for candidate in python3.11 python3 /usr/bin/python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    fail "this needs root, and there is no sudo" "su -c 'apt-get install sudo', or run as root"
  fi
}

# Packages must not start services; the policy that says so is taken back afterwards, whatever happens.
install_packages() {
  command -v apt-get > /dev/null || fail "this machine has no apt; missing: $*" "use Debian 12, or install them by hand"
  say "apt installs: $*"
  as_root bash -s -- "$@" << 'EOF' >&2
set -euo pipefail
policy=/usr/sbin/policy-rc.d
# Marked, so that a run that was killed does not leave its policy behind for good.
if [ -e "$policy" ] && ! grep -qs 'helix set-up' "$policy"; then mv "$policy" "$policy.helix-kept"; fi
restore() { rm -f "$policy"; if [ -e "$policy.helix-kept" ]; then mv "$policy.helix-kept" "$policy"; fi; }
trap restore EXIT
printf '#!/bin/sh\n# helix set-up: no service starts\nexit 101\n' > "$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update
apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" < /dev/null
EOF
}

# apt's lists name the mirror and the locked .debs; images often come without them.
refresh_lists() {
  local file
  while read -r file; do
    [ -e "$file" ] && return
  done < <(apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' 2> /dev/null)
  command -v apt-get > /dev/null || return 0
  say "apt fetches its lists"
  as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
}

# uv does not read pip's settings: hand over the index, extra indexes and wheel folders that pip would use.
use_pip_settings() {
  local pip=$1 value
  setting() { "$pip" config get "global.$1" 2> /dev/null || "$pip" config get "install.$1" 2> /dev/null || true; }
  value=${PIP_INDEX_URL:-$(setting index-url)}
  [ -z "$value" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$value}"
  value=${PIP_EXTRA_INDEX_URL:-$(setting extra-index-url)}
  [ -z "$value" ] || export UV_INDEX="${UV_INDEX:-$value}"
  for value in ${PIP_FIND_LINKS:-$(setting find-links)}; do
    # pip passes over a folder that is not there; uv stops at it.
    case $value in *://*) ;; *) [ -d "$value" ] || continue ;; esac
    export UV_FIND_LINKS="${UV_FIND_LINKS:+$UV_FIND_LINKS,}$value"
  done
  value=${PIP_CERT:-$(setting cert)}
  [ -z "$value" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$value}"
}

# The lines of one distribution in a lock, continued ones included.
pin_of() { awk -v start="^$1==" '$0 ~ start { on = 1 } on { print } on && !/\\$/ { exit }' "$lock"; }

# Distributions that come as source archives only; they are built in the environment, with what it pins.
source_pins() { grep -E '\.(tar\.gz|zip|tar\.bz2)$' "$lock" || true; }

make_environment() {
  local python uv=$venv/bin/uv editable=() folder
  python=$(find_python)
  say "makes .helix/venv with $("$python" --version) and $(grep -c '^[a-z0-9].*==' "$lock") locked distributions"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  pin_of uv > "$state/uv.txt"
  [ -s "$state/uv.txt" ] || fail "requirements/host.lock does not pin uv" "git checkout requirements/host.lock"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$state/uv.txt"
  use_pip_settings "$venv/bin/pip"
  # The machine's certificates, as Debian's pip has it, not those that uv brings.
  export VIRTUAL_ENV=$venv UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
  source_pins > "$state/sources.txt"
  grep -vxFf "$state/sources.txt" "$lock" > "$state/wheels.txt" || cp "$lock" "$state/wheels.txt"
  "$uv" pip install --quiet --require-hashes --no-deps --no-build -r "$state/wheels.txt"
  # No isolation: an isolated build would fetch whatever setuptools is newest today.
  [ ! -s "$state/sources.txt" ] ||
    "$uv" pip install --quiet --require-hashes --no-deps --no-build-isolation -r "$state/sources.txt"
  for folder in "$root/lineage" "$root" "$root"/models/*/; do
    [ ! -e "$folder/pyproject.toml" ] || editable+=(--editable "${folder%/}")
  done
  "$uv" pip install --quiet --no-deps --no-build-isolation "${editable[@]}"
  rm -f "$state"/{uv,wheels,sources}.txt
}

# All that steers the set-up, and where it happens: environments and editable installs hold absolute paths.
key() {
  { printf '%s\n' "$root"
    cd "$root"
    sha256sum platform/setup/bootstrap.sh requirements/host.lock pyproject.toml ./*/pyproject.toml \
      models/*/pyproject.toml platform/tools/go.lock platform/tools/{cosign,olareg}/go.{mod,sum} 2> /dev/null
  } | sha256sum
}

is_ready() {
  [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] || return 1
  [ -x "$venv/bin/helix" ] && [ -x "$state/tools/cosign" ] && [ -x "$state/tools/olareg" ] || return 1
  [ -z "$(missing_packages)" ]
}

key=$(key)
if is_ready; then exit 0; fi

started=$SECONDS
mkdir -p "$state"
# One set-up at a time: `make -j` and two terminals are both usual.
exec 9> "$state/setup.lock"
flock 9
if is_ready; then exit 0; fi
say "this takes a few minutes, once; everything but Debian packages goes under .helix/"
mapfile -t packages < <(missing_packages)
if [ "${#packages[@]}" -gt 0 ]; then install_packages "${packages[@]}"; fi
refresh_lists
mapfile -t packages < <(missing_packages)
[ "${#packages[@]}" = 0 ] || fail "still missing: ${packages[*]}" "apt-get install ${packages[*]}"
if is_ready; then exit 0; fi # only packages were missing
make_environment
say "brings cosign and olareg, built from source (cosign takes 3 to 5 minutes on two cores, once)"
"$venv/bin/helix" tools build cosign olareg > /dev/null
printf '%s\n' "$key" > "$stamp"
say "done in $((SECONDS - started)) s"
