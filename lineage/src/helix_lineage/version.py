"""The version of this package, which its answers name; a test compares it with `pyproject.toml`."""

VERSION = "0.1.0"
