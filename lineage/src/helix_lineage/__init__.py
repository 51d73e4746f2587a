"""The memory of Helix: what made a prediction, whether it can be made again, whether anybody changed the record.

Bottom to top:

    formats/        how values become bytes, one way only; reading what others can write
    records/        the chain of records, and the store that keeps it by digest
    attestations/   who may say what: trust root, DSSE, releases, promotions, revocations
    tlog/           a transparency log that knows nothing of predictions
    shard/          the log of one serving process
    directory/      which shards there are, how far each came, what is revoked
    evidence/       a prediction: trace, receipt, list
    audit/ replay/  did anybody change the record; does it give the same bytes again
    page/ cli/      the trace as one page; the command line

The bytes on disk are in `lineage/FORMAT.md`. Nothing here imports the rest of Helix.

>>> from helix_lineage.records.chain import DataCommit, parse
>>> data = DataCommit(parameters={"model": "m", "dvc_lock": "sha256:" + "0" * 64, "files": []})
>>> parse(data.to_bytes()).digest == data.digest
True
"""
