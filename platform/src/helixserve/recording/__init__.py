"""No answer without its record: the shard that a server writes, its registration, receipts."""
