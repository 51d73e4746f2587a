"""Protein structures as people send them: PDB and mmCIF text → chains of residues, and notes of what was left out."""
