"""What Nix builds from locked inputs alone: environments and images, and how two of them differ."""
