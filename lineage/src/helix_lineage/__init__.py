"""The memory of Helix: what made a prediction, whether it can be made again, whether anybody changed the record.

Bottom to top:

- `errors`, `canonical`, `records`, `typed`: bytes and identities; `merkle`, `checkpoint`: the log's mathematics
- `store`, `trust`, `dsse`, `release`, `promotion`: records by digest, and who may say what
- `shard`: the log of one serving process (write side `writer`, read side `reader`)
- `releases`, `trace`, `audit`, `replay`: the questions
- `commands`, `cli`: the command line

The bytes on disk are in `lineage/FORMAT.md`. Nothing here imports the rest of Helix.
"""
