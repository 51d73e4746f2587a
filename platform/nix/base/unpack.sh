# Unpacks $debs into $out with $busybox, then lets the Python that is now there finish the job.
set -eu
bb() { "$busybox" "$@"; }

bb mkdir -p "$out" part
status="$out/var/lib/dpkg/status.d"
for deb in $debs; do
  (cd part && bb ar x "$deb")
  bb xzcat part/data.tar.xz | bb tar x -C "$out"
  # One file a package, as distroless images have it: scanners read names and versions there.
  bb xzcat part/control.tar.xz | bb tar x -C part ./control
  bb mkdir -p "$status"
  bb mv part/control "$status/$(bb sed -n 's/^Package: //p' part/control)"
  bb rm part/*
done
bb find "$out" -perm /6000 -exec "$busybox" chmod a-s {} +

folder="$out/lib/x86_64-linux-gnu"
python() {
  PYTHONHOME="$out/usr" "$folder/ld-linux-x86-64.so.2" --library-path "$folder:$out/usr/lib/x86_64-linux-gnu" \
    "$out/usr/bin/python3.11" -B -P "$@"
}
python "$finish" "$out"
python "$libraries" "$out"
