# `nix build .#checks.x86_64-linux.NAME`: what every exported environment must hold to.
{ lib, python, base, models, packagesOf }:
{ }
