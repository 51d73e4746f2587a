"""From evidence to the graph: which links there are, and what holds each. Pure."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from helix_lineage.attestations import dsse
from helix_lineage.evidence.releases import FoundRelease
from helix_lineage.page import records
from helix_lineage.page.evidence import Evidence, Problem, SignedPromotion
from helix_lineage.page.graph import ChainRow, Edge, Graph, Node, NodeState
from helix_lineage.shard.entries import PredictionEntry
from helix_lineage.shard.header import ShardHeader
from helix_lineage.shard.reader import Inclusion

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def chain(given: Evidence) -> Graph:
    """The graph of everything that made one prediction."""
    header = given.header if isinstance(given.header, ShardHeader) else None
    nodes = [_prediction(given), _payload(given), _checkpoint(given), _shard(given)]
    edges = [
        Edge("prediction", "payload", "commits to", nodes[1].state),
        Edge("prediction", "checkpoint", "is included under", nodes[0].state),
        Edge("checkpoint", "shard", "is signed by", nodes[2].state),
    ]
    if header is not None:
        witness, promotion, release = _directory(given), _promotion(given, header), _release(given, header)
        nodes += [witness, promotion, release]
        edges += [
            Edge("shard", "directory", "is registered in", witness.state),
            Edge("shard", "promotion", "was promoted by", promotion.state),
            Edge("shard", "release", "serves", release.state),
            Edge("promotion", "release", "lets run", promotion.state),
        ]
    if isinstance(given.found, FoundRelease):
        more, links = records.below(given.found, None if header is None else header.image)
        nodes += more
        edges += links
    for node in _keys(given):
        nodes.append(node)
        edges.append(Edge(node.key.removesuffix("-key"), node.key, "is signed with", node.state))
    return Graph(given.id, None if header is None else header.model, {node.key: node for node in nodes}, tuple(edges))


def _prediction(given: Evidence) -> Node:
    title, subtitle = "Prediction", f"entry {given.sequence}"
    if isinstance(given.inclusion, Problem) or isinstance(given.entry, Problem):
        problem = given.inclusion if isinstance(given.inclusion, Problem) else given.entry
        why = problem.what if isinstance(problem, Problem) else ""
    else:
        why = "The entry is under a checkpoint that the shard's key signed: the inclusion proof leads to its root."
    state = (
        NodeState.FAILS if isinstance(given.inclusion, Problem) or isinstance(given.entry, Problem) else NodeState.HOLDS
    )
    if given.inclusion is None:
        state, why = NodeState.UNKNOWN, "Its shard cannot be read."
    rows = [ChainRow("prediction id", given.id), ChainRow("sequence in the log", str(given.sequence))]
    if isinstance(given.entry, PredictionEntry):
        rows += _entry_rows(given.entry)
    if isinstance(given.inclusion, Inclusion):
        rows += [
            ChainRow("leaf hash", given.inclusion.leaf.hex()),
            ChainRow("inclusion proof, from the leaf up", [node.hex() for node in given.inclusion.proof]),
        ]
    return Node("prediction", title, subtitle, state, why, tuple(rows))


def _entry_rows(entry: PredictionEntry) -> list[ChainRow]:
    batch = "none" if entry.batch_plan is None else f"plan in entry {entry.batch_plan}, row {entry.row}"
    return [
        ChainRow("request id", entry.request_id.hex()),
        ChainRow("item", f"{entry.index + 1} of {entry.count}"),
        ChainRow("seed", "none" if entry.seed is None else str(entry.seed)),
        ChainRow("lane", entry.lane),
        ChainRow("batch", batch),
        ChainRow("input commitment", entry.input_commitment.hex()),
        ChainRow("output commitment", entry.output_commitment.hex()),
        ChainRow("started (the host's claim)", time(entry.started_ns)),
        ChainRow("finished (the host's claim)", time(entry.finished_ns)),
    ]


def _payload(given: Evidence) -> Node:
    said = set(given.payload.values())
    if not said:
        state, why = NodeState.UNKNOWN, "Without a readable entry there is nothing to compare a payload with."
    elif said <= {"kept"}:
        state, why = NodeState.HOLDS, "Input and output are kept, and meet the commitments of the entry."
    elif said <= {"kept", "erased"}:
        erased = " and ".join(name for name, what in given.payload.items() if what == "erased")
        state, why = NodeState.ERASED, f"Erased: {erased}. What is kept meets its commitment."
    else:
        wrong = "; ".join(f"{name}: {what}" for name, what in given.payload.items() if what not in ("kept", "erased"))
        state, why = NodeState.FAILS, wrong
    rows = tuple(ChainRow(name, what) for name, what in given.payload.items())
    return Node("payload", "Payload", "input and output", state, why, rows)


def _checkpoint(given: Evidence) -> Node:
    if not isinstance(given.inclusion, Inclusion):
        why = "No checkpoint covers this entry." if given.inclusion is not None else "Its shard cannot be read."
        return Node("checkpoint", "Checkpoint", "", NodeState.UNKNOWN, why)
    signed = given.inclusion.checkpoint
    rows = (
        ChainRow("log", signed.origin),
        ChainRow("size", str(signed.size)),
        ChainRow("root", signed.root.hex()),
        ChainRow("signed note", given.inclusion.note.decode("utf-8", "replace")),
    )
    why = "Its signature holds under the key in the shard's header."
    return Node("checkpoint", "Checkpoint", f"of {signed.size} entries", NodeState.HOLDS, why, rows)


def _shard(given: Evidence) -> Node:
    shard, header = given.id.partition(".")[0], given.header
    if isinstance(header, Problem):
        return Node("shard", "Shard", shard[:12], NodeState.FAILS, header.what, (ChainRow("shard id", shard),))
    rows = (
        ChainRow("shard id", shard),
        ChainRow("public key (Ed25519)", header.public_key.hex()),
        ChainRow("model", header.model),
        ChainRow("mode", header.mode),
        ChainRow("release", header.release or "none"),
        ChainRow("promotion", header.promotion or "none"),
        ChainRow("generation", str(header.generation)),
        ChainRow("image (the scheduler's claim)", header.image or "none"),
        ChainRow("machine class", header.machine_class),
        ChainRow("libraries", [{"library": name, "version": text} for name, text in sorted(header.libraries.items())]),
        ChainRow("started (the host's claim)", time(header.started_ns)),
    )
    why = "Its id is the hash of its header, which names key, release, image and machine class."
    return Node("shard", "Shard", shard[:12], NodeState.HOLDS, why, rows)


def _directory(given: Evidence) -> Node:
    said = given.directory
    if said is None:
        why = "No directory was asked (--directory): nothing outside this log says that it is whole."
        return Node("directory", "Directory", "not asked", NodeState.UNCHECKED, why)
    rows = [ChainRow("log", said.origin)]
    times = (
        ("registered", said.registered_ns),
        ("without the entry", said.after_ns),
        ("with the entry", said.before_ns),
    )
    rows += [ChainRow(name, time(time_ns)) for name, time_ns in times if time_ns is not None]
    if said.index is not None:
        rows += [ChainRow("registered in its entry", str(said.index)), ChainRow("closed", said.closed)]
    if said.marks:
        rows.append(ChainRow("revoked", [mark.to_json() for mark in said.marks]))
    state, why = NodeState.HOLDS, "It registered the shard before it served, and took a checkpoint with this entry."
    if said.marks:
        state, why = NodeState.FAILS, "; ".join(mark.text for mark in said.marks)
    elif said.index is None:
        state, why = NodeState.FAILS, "It never heard of this shard."
    elif said.before_ns is None:
        state, why = NodeState.UNCHECKED, "It registered the shard, but has no checkpoint with this entry yet."
    subtitle = said.origin.rpartition("/")[2]
    return Node("directory", "Directory", subtitle, state, why, tuple(rows))


def _promotion(given: Evidence, header: ShardHeader) -> Node:
    if header.promotion is None:
        why = f"Served in mode {header.mode}: no promotion vouches for it in an environment."
        return Node("promotion", "Promotion", "none", NodeState.ABSENT, why)
    rows = [ChainRow("promotion", header.promotion), ChainRow("generation in the header", str(header.generation))]
    subtitle = f"generation {header.generation}"
    if not isinstance(given.promotion, SignedPromotion):
        why = given.promotion.what if isinstance(given.promotion, Problem) else "It was not looked for."
        return Node("promotion", "Promotion", subtitle, _refused(given), why, tuple(rows))
    found = given.promotion.verified
    rows += [
        ChainRow("environment", found.environment),
        ChainRow("replaces", found.promotion.parents.get("previous", "nothing: it is the first")),
        ChainRow("signed by", found.key_id),
        *_signature_rows(given.promotion.bundle),
    ]
    why = f"Its signature holds, it is about this release, and lets it run in {found.environment}."
    return Node("promotion", "Promotion", subtitle, NodeState.HOLDS, why, tuple(rows))


def _release(given: Evidence, header: ShardHeader) -> Node:
    if header.release is None:
        return Node("release", "Release", "none", NodeState.UNKNOWN, "The shard was served without a release.")
    short = header.release.removeprefix("sha256:")[:12]
    rows = [ChainRow("release", header.release)]
    if not isinstance(given.found, FoundRelease):
        why = given.found.what if isinstance(given.found, Problem) else "It was not looked for."
        return Node("release", "Release", short, _refused(given), why, tuple(rows))
    rows += records.rows(given.found.release)[1:]
    verified = given.found.verified
    if verified is None:
        why = given.found.problem or "It is not signed."
        return Node("release", "Release", short, _refused(given), why, tuple(rows))
    rows += [
        ChainRow("subject", f"{verified.statement_subject.name}@{verified.statement_subject.digest}"),
        ChainRow("signed by", verified.key_id),
        *_signature_rows(given.found.bundle),
    ]
    why = "A releaser's signature holds, and every record below it is there under its digest."
    return Node("release", "Release", short, NodeState.HOLDS, why, tuple(rows))


def _refused(given: Evidence) -> NodeState:
    """Without a trust root no signature can be checked; with one, it does not hold."""
    return NodeState.UNKNOWN if given.trust is None else NodeState.FAILS


def _signature_rows(bundle: bytes | None) -> list[ChainRow]:
    if bundle is None:
        return []
    envelope = dsse.parse_bundle(bundle)
    return [ChainRow("signature (base64)", [base64.b64encode(item).decode() for item in envelope.signatures])]


def _keys(given: Evidence) -> list[Node]:
    """The keys that vouch for release and promotion."""
    release = given.found.verified if isinstance(given.found, FoundRelease) else None
    promotion = given.promotion.verified if isinstance(given.promotion, SignedPromotion) else None
    found = []
    for name, role, verified in (("release", "releaser", release), ("promotion", "promoter", promotion)):
        if verified is None:
            continue
        rows = (ChainRow("key id", verified.key_id), ChainRow("role", role), ChainRow("builder", verified.builder))
        why = f"The trust root names it as a {role}'s, and it held when the shard started."
        short = verified.key_id.removeprefix("sha256:")[:12]
        found.append(Node(f"{name}-key", f"{role.capitalize()}'s key", short, NodeState.HOLDS, why, rows))
    return found


def time(nanoseconds: int) -> str:
    """Exact, and for any value that 64 bits hold: a header may claim the year 2554."""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{(_EPOCH + timedelta(seconds=whole)).strftime('%Y-%m-%dT%H:%M:%S')}.{rest:09d}Z"
