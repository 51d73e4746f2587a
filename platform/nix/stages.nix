# The stages that are builds: data, import, export and compile, each by the command that also runs elsewhere.
{ lib, locks, fixed, python, sources, model, folder, build, kernels }:
let
  contract = builtins.fromTOML (builtins.readFile (folder + "/model.toml"));

  # "package.module:function" → "package.module"
  hook = stage:
    let found = builtins.match "([A-Za-z0-9_.]+):[A-Za-z0-9_]+" (contract.stages.${stage} or ""); in
    if found == null then throw "models/${model}/model.toml: [stages] ${stage} is not module:function"
    else builtins.head found;

  run = { stage, modules, inputs }:
    let
      name = "${model}-${stage}";
      code = sources.stage { inherit name model; modules = [ "model_to_metal.stages.__main__" ] ++ modules; };
      input = role: [ "--input" "${role}=${inputs.${role}}" ];
    in
    python.run {
      inherit name;
      PYTHONPATH = builtins.concatStringsSep ":" (code.path ++ [ "${code.model}/src" "${build}/site-packages" ]);
      args = [ "-m" "model_to_metal.stages" stage "--model" code.model "--output" (placeholder "out") ]
        ++ builtins.concatMap input (builtins.attrNames inputs);
    };

  upstream = locks.wheels (folder + "/data/upstream.lock");

  # The data stage reads upstream's files by their own names, from one folder.
  downloads = python.run {
    name = "${model}-upstream";
    args = [
      ./python/folder.py
      (placeholder "out")
      (builtins.toJSON (builtins.listToAttrs (map (pin: { inherit (pin) name; value = fixed pin; }) upstream)))
    ];
  };

  data =
    let
      code = sources.stage {
        name = "${model}-data";
        inherit model;
        modules = [ (hook "data") ];
        files = [ "data/upstream.lock" ];
      };
    in
    python.run {
      name = "${model}-data";
      PYTHONPATH = builtins.concatStringsSep ":" (code.path ++ [ "${code.model}/src" ]);
      # As in dvc.yaml: each of the data's parts is a folder; an image is made from this one.
      args = [ "-m" (hook "data") "weights" "--downloads" downloads "--output" "${placeholder "out"}/weights" ];
    };

  weights = run {
    stage = "import";
    modules = [ "model_to_metal.stages.import_weights" (hook "import") ];
    inputs = { inherit data; };
  };
  exported = run {
    stage = "export";
    modules = [ "model_to_metal.stages.export" (hook "export") ];
    inputs = { inherit weights; };
  };
  engine = run {
    stage = "compile";
    modules = [ "model_to_metal.stages.compile_engine" ];
    # What a target needs besides stands in model_to_metal/targets.py, too: the stage names what is absent.
    inputs = { inherit exported; } // (if contract.target.name == "native-cpu" then { inherit kernels; } else { });
  };
in
{
  inherit data weights exported engine;
}
