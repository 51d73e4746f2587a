# A locked file as a build input. Its path depends on its name and SHA-256 only, and `helix fetch`
# puts it there, so the builder never runs; when it does, it says what to do.
{ system, lib, seed }:
pin:
derivation {
  inherit system;
  name = lib.storeName pin.name;
  outputHashMode = "flat";
  outputHashAlgo = "sha256";
  outputHash = pin.sha256;
  builder = seed.busybox;
  args = [ "sh" "-c" "echo '${lib.storeName pin.name} is not in the store; run: helix fetch' >&2; exit 1" ];
  preferLocalBuild = true;
}
