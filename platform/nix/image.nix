# The serve image of a model: what lies where, and how it starts. Everything of ours is under
# /opt/helix; no path of the Nix store is in it (layers.py refuses one).
{ base, sources, oci, model, serve, engine }:
let
  home = "/opt/helix";
  layer = name: source: prefix: more: oci.layers { name = "${model}-${name}"; inherit source prefix more; };

  platform = sources.compiled {
    name = "platform";
    home = "${home}/platform";
    trees = {
      helixserve = sources.package { at = "platform/src/helixserve"; };
      helix_lineage = sources.package { at = "lineage/src/helix_lineage"; };
    };
  };

  code = sources.compiled {
    name = "${model}-code";
    home = "${home}/model";
    trees.model = sources.model model;
  };

  # From what changes least to what changes most: a registry and a node keep what they have.
  content = [
    (oci.layers {
      name = "base";
      source = base;
      prefix = "";
      # What opens a prompt on a live server, or a web page of its modules: builds and tests use it, servers don't.
      without = [
        "usr/bin/pdb3.11" "usr/bin/pydoc3.11" "usr/lib/python3.11/pdb.py" "usr/lib/python3.11/pydoc.py"
        "usr/lib/python3.11/pydoc_data"
      ];
    })
    (oci.layers {
      name = "${model}-serve-env";
      source = "${serve}/site-packages";
      prefix = "opt/helix/site-packages";
      wheels = "${serve}/wheels.json";
    })
    (layer "platform" platform "opt/helix/platform" [ ])
    (layer "artifacts" engine "opt/helix/artifacts" [ ])
  ];

  # The list names every file, so it changes with any of them: it shares a layer with what changes most.
  ofCode = more: layer (if more == [ ] then "listed" else "code") "${code}/model" "opt/helix/model" more;
  files = oci.files { name = model; layers = content ++ [ (ofCode [ ]) ]; };
in
{
  inherit files;

  image = oci.image {
    name = model;
    layers = content ++ [ (ofCode [ files "" ]) ];
    config = {
      User = "65532:65532";
      WorkingDir = "${home}/model";
      Entrypoint = [ "/usr/bin/python3.11" "-m" "helixserve" ];
      Cmd = [ "serve" ];
      Env = [
        "PATH=/usr/bin:/bin"
        "PYTHONPATH=${home}/platform:${home}/model/src:${home}/site-packages"
        "PYTHONDONTWRITEBYTECODE=1"
        "PYTHONHASHSEED=0"
        "HOME=/tmp"
        "BENTOML_HOME=/tmp/bentoml"
        "BENTOML_DO_NOT_TRACK=True"
        "OMP_NUM_THREADS=1"
      ];
    };
  };
}
