# The one executable that a build starts from: Debian's static busybox, as a folder `bin/busybox`
# (argument 0 picks the applet, so the file must bear that name).
{ system, locks }:
let
  pin = builtins.head (locks.seeds ./seed.lock);
  tree = derivation {
    inherit system;
    inherit (pin) name;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash = pin.sha256;
    # Never runs: `helix fetch` puts the output in place. If it does run, Nix prints this name.
    builder = "/the seed is not in the store. run: helix fetch";
    preferLocalBuild = true;
  };
in
{
  inherit tree;
  busybox = "${tree}/bin/busybox";
}
