#!/usr/bin/env bash
# Does a branch change what an environment runs of a model, or the deny-list?
#
#     changes_promotion.sh BASE HEAD
#
# Prints `yes` or `no`: what HEAD changed since it left BASE. Fails, and prints neither, when it can't tell.
set -euo pipefail

[ $# = 2 ] || { echo "usage: $0 BASE HEAD" >&2; exit 2; }
base=$(git merge-base "$1" "$2")
# No renames: what moves out of a folder changes it, too.
changed=$(git diff --no-renames --name-only "$base" "$2" -- \
  ':(glob)gitops/argocd/environments/*/*/**' ':(exclude,glob)gitops/argocd/environments/*/_common/**' \
  'gitops/argocd/policies/denied.json')
if [ -n "$changed" ]; then echo yes; else echo no; fi
