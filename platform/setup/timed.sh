#!/usr/bin/env bash
# Makes targets one after another, stops at the first that fails, and says how long each took.
#
#     timed.sh TARGET...
set -euo pipefail

say() {
  printf '\n%-14s %8s\n' target minutes
  printf '%s\n' "${taken[@]}"
}

taken=()
trap 'say >&2' EXIT
for target in "$@"; do
  start=$SECONDS
  status=0
  make --no-print-directory "$target" || status=$?
  taken+=("$(printf '%-14s %6d:%02d%s' "$target" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) \
    "$([ $status = 0 ] || printf '  failed')")")
  [ $status = 0 ] || exit $status
done
