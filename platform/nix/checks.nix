# What the exported attributes must hold to: `nix build .#checks.x86_64-linux.NAME`.
# (The base checks itself while it is made; layers.py refuses store paths, files.py double files.)
{ root, lib, python, sources, base, models, packagesOf }:
let
  check = name: args: python.run { inherit name args; };

  of = model:
    let
      packages = packagesOf model;
      serve = packages."${model}-serve-env";
      named = builtins.match ''.*service: "([A-Za-z0-9_.]+):.*'' (builtins.readFile (root + "/models/${model}/bentofile.yaml"));
      service = if named == null then throw "models/${model}/bentofile.yaml names no service" else builtins.head named;
      runner = builtins.match "([A-Za-z0-9_.]+):.*" (builtins.fromTOML (builtins.readFile (root + "/models/${model}/model.toml"))).serve.runner;
      modules = [ service ] ++ (if runner == null then [ ] else runner);
      code = sources.stage { name = "${model}-service"; inherit model modules; };
    in
    {
      # Every shared library that a wheel needs is in the image, too.
      "${model}-libraries" = check "${model}-libraries"
        [ ./checks/passed.py (placeholder "out") ./base/libraries.py base "${serve}/site-packages" ];
      # The model's service, and a runner of its own, import in its serve environment, which holds nothing that only training and export need.
      "${model}-imports" = python.run {
        name = "${model}-imports";
        PYTHONPATH = builtins.concatStringsSep ":" (code.path ++ [ "${code.model}/src" ]);
        args = [
          ./checks/passed.py (placeholder "out")
          ./checks/imports.py "${serve}/site-packages" (builtins.concatStringsSep "," modules) "torch"
        ];
      };
    };
in
builtins.foldl' (all: model: all // of model) { } models
