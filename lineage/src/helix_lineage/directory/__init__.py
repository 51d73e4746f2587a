"""The directory: a small log with a key of its own that remembers which shards there are, and how far they came.

Bottom to top (FORMAT.md 11):

- `entries`: requests and entries; `receipt`: what is answered, and how a client checks it; `bundles`: the signed
  statements beside the log; `rules`: what is taken
- `source`: reads a directory from a URL or a folder; `evidence`: what a shard shows; `view`: all it holds, checked
- `admission`: who may register shards, and how many
- `storage`, `service`, `server`: the directory itself; `client`: talks to it; `witness`: keeps its checkpoint elsewhere
"""
