{
  description = "Helix: from a researcher's commit to a signed image, without nixpkgs and without a network";

  # No inputs: everything that a build needs is named by SHA-256 in a lock and brought in by `helix fetch`.
  outputs = _: import ./platform/nix { root = ./.; };
}
