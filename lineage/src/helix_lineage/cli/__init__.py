"""The commands of `helix-lineage`, one a file: each parses, calls one function, prints."""
