# OCI images: layers as builds of their own, so that a changed line makes one small layer again.
{ lib, python }:
{
  # The folder `source` as one layer (or more, when `wheels.json` shows large wheels), put at `prefix`.
  # `more` are folders and prefixes in turn, that go into the last layer; `without` are names that stay out.
  # Gives `layers.json` (digests, sizes, files) and `blobs/sha256/…`.
  layers = { name, source, prefix, wheels ? "", more ? [ ], without ? [ ] }:
    python.run {
      name = "${name}-layers";
      args = [ ./oci/layers.py (placeholder "out") source prefix wheels ] ++ more;
      WITHOUT = builtins.toJSON without;
    };

  # The list of every file of the root filesystem, as `opt/helix/files.json`.
  files = { name, layers }:
    python.run {
      name = "${name}-files";
      args = [ ./oci/files.py (placeholder "out") ] ++ layers;
    };

  # An OCI image layout.
  image = { name, layers, config }:
    python.run {
      name = "${name}-image";
      args = [ ./oci/image.py (placeholder "out") (builtins.toJSON config) ] ++ layers;
    };
}
