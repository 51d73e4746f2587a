"""A shard: the append-only log of one serving process (FORMAT.md 8).

Write side: `ShardWriter`, which a server uses. Read side: `helix_lineage.shard.reader`.
Rules without IO: entries, header, journal, payload, tiles, layout.
"""

from helix_lineage.shard.header import ShardHeader
from helix_lineage.shard.prediction import Prediction
from helix_lineage.shard.writer import ShardWriter

__all__ = ["Prediction", "ShardHeader", "ShardWriter"]
