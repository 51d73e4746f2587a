# The base root filesystem: Debian packages, unpacked. It holds Python and what its wheels link to,
# no shell and no package manager; it is the bottom of every image and the Python of every build.
{ system, lib, locks, seed, fixed }:
let
  pins = builtins.filter (pin: builtins.match "busybox-static_.*" pin.name == null) (locks.debs ./debs.lock);
in
derivation {
  name = "base";
  inherit system;
  debs = map fixed pins;
  builder = seed.busybox;
  args = [ "sh" ./base/unpack.sh ];
  inherit (seed) busybox;
  finish = ./base/finish.py;
  libraries = ./base/libraries.py;
  PYTHONHASHSEED = "0";
}
