"""A small model that is not ProteinMPNN."""
