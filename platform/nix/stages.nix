# The stages that are builds: data, import, export and compile, each by the command that also runs elsewhere.
{ lib, locks, fixed, python, sources, model, folder, build, kernels }:
let
  contract = builtins.fromTOML (builtins.readFile (folder + "/model.toml"));

  # stage → { module, hook, inputs, … }, as the stages declare (python -m model_to_metal.pipeline.derivations).
  declared = builtins.fromJSON (builtins.readFile ./stages.json);

  # "package.module:function" → "package.module"
  hook = table: key:
    let found = builtins.match "([A-Za-z0-9_.]+):[A-Za-z0-9_]+" (contract.${table}.${key} or ""); in
    if found == null then throw "models/${model}/model.toml: [${table}] ${key} is not module:function"
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
        modules = [ (hook "stages" "data") ];
        files = [ "data/upstream.lock" ];
      };
    in
    python.run {
      name = "${model}-data";
      PYTHONPATH = builtins.concatStringsSep ":" (code.path ++ [ "${code.model}/src" ]);
      # As in dvc.yaml: each of the data's parts is a folder; an image is made from this one.
      args = [ "-m" (hook "stages" "data") "weights" "--downloads" downloads "--output" "${placeholder "out"}/weights" ];
    };

  # What the target adds, by the names of stages.json.
  added = { inherit kernels; };
  forTarget = spec: lib.pick (spec.targets.${contract.target.name} or [ ]) added;

  derivation = attribute: spec:
    run {
      inherit (spec) stage;
      modules = [ spec.module ] ++ (if spec.hook == null then [ ] else [ (hook (builtins.elemAt spec.hook 0) (builtins.elemAt spec.hook 1)) ]);
      inputs = builtins.mapAttrs (_: from: made.${from}) spec.inputs // forTarget spec;
    };

  made = { inherit data; } // builtins.mapAttrs derivation declared;
in
made
