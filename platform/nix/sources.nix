# Which sources a build takes: never the checkout, always the smallest part that it runs, so that a
# README changes nothing, and the HTTP code does not make an export run again.
{ root, lib, python }:
let
  packages = [ "lineage/src" "platform/src" ];

  # ---- import closures -------------------------------------------------------------------------

  words = text: builtins.filter (word: builtins.isString word && word != "") (builtins.split "[ \t,()\\]+" text);

  # The names of `a, b as c, (d` without the aliases and comments.
  names = text:
    let
      clean = builtins.head (builtins.split "#" text);
      keep = list:
        if list == [ ] then [ ]
        else if builtins.head list == "as"
        then keep (if builtins.length list > 1 then builtins.tail (builtins.tail list) else [ ])
        else [ (builtins.head list) ] ++ keep (builtins.tail list);
    in
    keep (words clean);

  # The modules that a file may import, also inside functions. `from a import b` may name the module
  # a.b or a value in a: both are tried. A list in parentheses goes on over the following lines.
  step = state: line:
    let
      from = builtins.match "[ \t]*from[ \t]+([A-Za-z0-9_.]+)[ \t]+import[ \t]+(.*)" line;
      plain = builtins.match "[ \t]*import[ \t]+(.*)" line;
      qualified = base: text: [ base ] ++ map (name: "${base}.${name}") (names text);
      opens = text: builtins.match "[(][^)]*" text != null;
    in
    if state.open != null then {
      found = state.found ++ qualified state.open line;
      open = if builtins.match ".*[)].*" line != null then null else state.open;
    }
    else if from != null && builtins.substring 0 1 (builtins.head from) == "."
    then throw "relative import in a stage's sources: ${line}"
    else if from != null then {
      found = state.found ++ qualified (builtins.head from) (builtins.elemAt from 1);
      open = if opens (builtins.elemAt from 1) then builtins.head from else null;
    }
    else if plain != null then state // { found = state.found ++ names (builtins.head plain); }
    else state;

  imported = file:
    (builtins.foldl' step { found = [ ]; open = null; }
      (builtins.filter builtins.isString (builtins.split "\n" (builtins.readFile file)))).found;

  locate = roots: module:
    let
      path = builtins.replaceStrings [ "." ] [ "/" ] module;
      candidates = builtins.concatMap (folder: [ "${folder}/${path}.py" "${folder}/${path}/__init__.py" ]) roots;
      there = builtins.filter (name: builtins.pathExists (root + "/${name}")) candidates;
    in
    if there == [ ] then null else builtins.head there;

  # Paths, relative to the checkout, of every file that `modules` can reach by imports.
  closure = { modules, model }:
    let
      roots = packages ++ [ "models/${model}/src" ];
      node = key: { inherit key; file = locate roots key; };
      upper = key: let up = builtins.match "(.*)[.][^.]*" key; in if up == null then [ ] else up;
      reached = builtins.genericClosure {
        startSet = map node modules;
        operator = { key, file }:
          map node (upper key ++ (if file == null then [ ] else imported (root + "/${file}")));
      };
      absent = builtins.filter (module: locate roots module == null) modules;
    in
    if absent != [ ] then throw "models/${model}: no such module: ${toString absent}"
    else lib.unique (map (item: item.file) (builtins.filter (item: item.file != null) reached));

  # ---- trees -----------------------------------------------------------------------------------

  # The part of the folder `at` for which `keep` (given a path relative to it, and its type) is true.
  filtered = { name, at, keep }:
    let
      path = root + "/${at}";
      # Nix gives the filter the path on disk; in a chroot store that ends in, but is not, `path`.
      relative = full: builtins.substring 1 (-1) (lib.after (builtins.unsafeDiscardStringContext (toString path)) full);
    in
    builtins.path { inherit name path; filter = full: type: keep (relative full) type; };

  only = { name, at, files }:
    let wanted = lib.set (files ++ builtins.concatMap (file: lib.ancestors (lib.parent file)) files); in
    filtered { inherit name at; keep = path: _: wanted ? ${path}; };

  below = prefix: files:
    let length = builtins.stringLength prefix + 1; in
    map (file: builtins.substring length (-1) file)
      (builtins.filter (file: builtins.substring 0 length file == "${prefix}/") files);

  isCode = path: type:
    if type == "directory" then baseNameOf path != "__pycache__"
    else type == "regular" && !(lib.hasSuffix ".md" path) && !(lib.hasSuffix ".pyc" path);
in
{
  inherit closure;

  # The import closure of `modules` as folders for PYTHONPATH, and the model's folder with its
  # contract, those of its modules that are in the closure, and other `files` that they read.
  stage = { name, model, modules, files ? [ ] }:
    let
      reached = closure { inherit modules model; };
      part = at: only { inherit at; name = "${name}-${baseNameOf (lib.parent at)}"; files = below at reached; };
      folder = "models/${model}";
    in
    {
      path = map part packages;
      model = only {
        name = "${name}-model";
        at = folder;
        files = [ "model.toml" ] ++ files ++ below folder reached;
      };
    };

  # A package of the platform, whole.
  package = { at }: filtered { name = baseNameOf at; inherit at; keep = isCode; };

  # What an image holds of the model's folder: the contract, the service and the code.
  model = name:
    filtered {
      name = "${name}-model";
      at = "models/${name}";
      keep = path: type:
        builtins.elem path [ "model.toml" "bentofile.yaml" "src" ]
        || (builtins.match "src/.*" path != null && isCode path type);
    };

  # Source folders, copied side by side and compiled: `trees` maps a path to a source.
  compiled = { name, trees, home }:
    python.run {
      inherit name;
      args = [ ./python/compile.py (placeholder "out") home (builtins.toJSON trees) ];
    };
}
