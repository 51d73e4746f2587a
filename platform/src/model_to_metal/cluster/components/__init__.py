"""The components of a cluster, one file a part: each gives what the node starts, as data."""
