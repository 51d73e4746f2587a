"""The OCI registry: its client, what lies in it, and the one that serves on a laptop."""
