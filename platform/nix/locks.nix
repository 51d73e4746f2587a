# Reads the locks: the same lines that pip reads (docs/decisions/0003-one-lock-format.md).
{ lib }:
let
  parse = pattern: file: make:
    map
      (line:
        let found = builtins.match pattern line; in
        if found == null
        then throw "${toString file}: not a line of a lock: ${line}; run: helix lock"
        else make found)
      (lib.entries (builtins.readFile file));

  pin = fields: { name = builtins.elemAt fields 0; sha256 = builtins.elemAt fields 1; };
in
{
  # name==version --hash=sha256:HEX  # FILENAME
  wheels = file:
    parse "[a-z0-9-]+==[^ ]+ --hash=sha256:([0-9a-f]{64})  # ([^ ]+)" file
      (fields: pin [ (builtins.elemAt fields 1) (builtins.elemAt fields 0) ]);

  # pool/main/…/NAME.deb sha256:HEX
  debs = file: parse "pool/main/[^ ]+/([^ /]+[.]deb) sha256:([0-9a-f]{64})" file pin;

  # NAME sha256:HEX, of a folder's Nix archive
  seeds = file: parse "([a-z0-9.-]+) sha256:([0-9a-f]{64})" file pin;
}
