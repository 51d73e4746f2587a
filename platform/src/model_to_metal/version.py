"""The version of the command `helix`; a test compares it with `pyproject.toml`."""

VERSION = "0.1.0"
