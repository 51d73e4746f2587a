#!/usr/bin/env bash
# Compares the images of two machines: `same_images.sh ONE OTHER REPORT`, each a folder that `make images` wrote.
# Exit status 0: the same models, with the same digests. 1: not, and diffoscope's report is in the folder REPORT.
set -euo pipefail

one=${1:?usage: same_images.sh ONE OTHER REPORT} other=${2:?} report=${3:?}

digests() { (cd "$1" && find . -name digest | LC_ALL=C sort | while read -r file; do echo "$file $(cat "$file")"; done); }

# A layout's blobs under names that tell what they are: blobs of two images have no names in common.
lay_out() {
  local layout=$1 target=$2 blobs=$1/blobs/sha256 manifest number=0 digest
  mkdir -p "$target"
  manifest=$blobs/$(jq -r '.manifests[0].digest' "$layout/index.json" | cut -d: -f2)
  jq . "$manifest" > "$target/manifest.json"
  jq . "$blobs/$(jq -r .config.digest "$manifest" | cut -d: -f2)" > "$target/config.json"
  while read -r digest; do
    cp "$blobs/${digest#sha256:}" "$target/layer-$(printf %03d "$number").tar.gz"
    number=$((number + 1))
  done < <(jq -r '.layers[].digest' "$manifest")
}

[ -n "$(digests "$one")" ] || { echo "no images in $one" >&2; exit 1; }
if diff <(digests "$one") <(digests "$other"); then
  digests "$one" | sed 's,^\./\(.*\)/digest ,the same on both machines: \1 ,'
  exit 0
fi
echo "the machines made other images" >&2
mkdir -p "$report"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for side in "$one" "$other"; do
  for layout in "$side"/*/layout; do
    [ ! -d "$layout" ] || lay_out "$layout" "$scratch/$(basename "$side")/$(basename "$(dirname "$layout")")"
  done
  mkdir -p "$scratch/$(basename "$side")"
done
command -v diffoscope > /dev/null || {
  sudo apt-get -qq update && sudo apt-get -qq install --no-install-recommends diffoscope-minimal
} >&2
diffoscope --exclude-directory-metadata=recursive --text "$report/report.txt" --html "$report/report.html" \
  --json "$report/report.json" "$scratch/$(basename "$one")" "$scratch/$(basename "$other")" || true
head -60 "$report/report.txt" >&2
exit 1
