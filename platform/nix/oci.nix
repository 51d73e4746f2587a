# OCI images: layers as builds of their own, so that a changed line makes one small layer again.
{ lib, python }:
{
  # The folder `source` as one layer (or more, when `wheels.json` shows large wheels), put at `prefix`.
  # Gives `layers.json` (digests, sizes, files) and `blobs/sha256/…`.
  layers = { name, source, prefix, wheels ? "" }:
    python.run {
      name = "${name}-layers";
      inherit source prefix wheels;
      args = [ ./oci/layers.py ];
    };

  # The list of every file of the root filesystem, as `opt/helix/files.json`.
  files = { name, layers }:
    python.run {
      name = "${name}-files";
      inherit layers;
      args = [ ./oci/files.py ];
    };

  # An OCI image layout.
  image = { name, layers, config }:
    python.run {
      name = "${name}-image";
      inherit layers;
      config = builtins.toJSON config;
      args = [ ./oci/image.py ];
    };
}
