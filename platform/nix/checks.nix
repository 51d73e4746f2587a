# What the exported attributes must hold to: `nix build .#checks.x86_64-linux.NAME`.
# (The base checks itself while it is made; layers.py refuses store paths, files.py double files.)
{ lib, python, base, models, packagesOf }:
let
  check = name: args: python.run { inherit name args; };

  of = model:
    let packages = packagesOf model; serve = packages."${model}-serve-env"; in
    {
      # Every shared library that a wheel needs is in the image, too.
      "${model}-libraries" = check "${model}-libraries"
        [ ./checks/passed.py (placeholder "out") ./base/libraries.py base "${serve}/site-packages" ];
      # The serve environment imports, and holds nothing that only training and export need.
      "${model}-imports" = check "${model}-imports"
        [ ./checks/passed.py (placeholder "out") ./checks/imports.py "${serve}/site-packages" "torch" ];
    };
in
builtins.foldl' (all: model: all // of model) { } models
