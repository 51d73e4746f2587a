# The few functions that we would otherwise take from nixpkgs.
rec {
  # Store names may not hold every character that a file name may.
  storeName = text:
    builtins.concatStringsSep ""
      (map (part: if builtins.isList part then "_" else part) (builtins.split "[^A-Za-z0-9+._?=-]" text));

  # The lines of a text that are neither empty nor comments.
  entries = text:
    builtins.filter (line: builtins.isString line && line != "" && builtins.substring 0 1 line != "#")
      (builtins.split "\n" text);

  hasSuffix = suffix: text:
    let
      length = builtins.stringLength text;
      end = builtins.stringLength suffix;
    in
    length >= end && builtins.substring (length - end) end text == suffix;

  # A text as a regular expression that matches it alone.
  literal = text: builtins.replaceStrings [ "." "+" "?" ] [ "[.]" "[+]" "[?]" ] text;

  # The last part of `text` that stands between (or after) occurrences of `separator`.
  after = separator: text:
    let parts = builtins.split (literal separator) text; in builtins.elemAt parts (builtins.length parts - 1);

  parent = path: let found = builtins.match "(.*)/[^/]*" path; in if found == null then "" else builtins.head found;

  # A folder and every folder above it, relative to the root.
  ancestors = path: if path == "" then [ ] else [ path ] ++ ancestors (parent path);

  set = names: builtins.listToAttrs (map (name: { inherit name; value = true; }) names);

  unique = names: builtins.attrNames (set names);

  # The same values, each name with `prefix` before it.
  prefixed = prefix: values:
    builtins.listToAttrs (map (name: { name = prefix + name; value = values.${name}; }) (builtins.attrNames values));

  # Those of `values` that are named.
  pick = names: values: builtins.listToAttrs (map (name: { inherit name; value = values.${name}; }) names);
}
