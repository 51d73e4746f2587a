# Wires: for each folder of models/ that has locks, its environments, its stages and its image.
{ root }:
let
  system = "x86_64-linux";
  lib = import ./lib.nix;
  locks = import ./locks.nix { inherit lib; };
  seed = import ./seed.nix { inherit system locks; };
  fixed = import ./fixed.nix { inherit system lib seed; };
  base = import ./base.nix { inherit system lib locks seed fixed; };
  python = import ./python.nix { inherit system lib locks fixed base; };
  sources = import ./sources.nix { inherit root lib python; };
  oci = import ./oci.nix { inherit lib python; };
  compileKernels = import ./kernels.nix { inherit root lib locks python; };

  folders = builtins.readDir (root + "/models");
  isModel = name:
    folders.${name} == "directory"
    && builtins.pathExists (root + "/models/${name}/environment/serve.lock");
  models = builtins.filter isModel (builtins.attrNames folders);

  packagesOf = model:
    let
      folder = root + "/models/${model}";
      serve = python.environment {
        name = "${model}-serve-env";
        wheels = locks.wheels (folder + "/environment/serve.lock");
      };
      build = python.linkedEnvironment {
        name = "${model}-build-env";
        wheels = locks.wheels (folder + "/environment/build.lock");
      };
      kernels = compileKernels { inherit folder; name = "${model}-kernels"; lock = folder + "/environment/build.lock"; };
      stages = import ./stages.nix { inherit lib locks fixed python sources model folder build kernels; };
      image = import ./image.nix { inherit base sources oci model serve; inherit (stages) engine; };
    in
    {
      "${model}-serve-env" = serve;
      "${model}-build-env" = build;
      "${model}-kernels" = kernels;
      "${model}-files" = image.files;
      "${model}-image" = image.image;
    } // lib.prefixed "${model}-" stages;
in
{
  packages.${system} = builtins.foldl' (all: model: all // packagesOf model) { inherit base; } models;
  checks.${system} = import ./checks.nix { inherit root lib python sources base models packagesOf; };
}
