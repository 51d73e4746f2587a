"""Keys, signatures, provenance: what is signed of a release, and how it is checked, taken back and rebuilt."""
