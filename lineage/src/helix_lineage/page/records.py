"""The records of a release as nodes and edges. Pure."""

from __future__ import annotations

from helix_lineage.attestations.release import ROLE_TYPES
from helix_lineage.evidence.releases import FoundRelease
from helix_lineage.evidence.trace import ARTIFACTS, artifacts
from helix_lineage.page.graph import ChainRow, Edge, Node, NodeState
from helix_lineage.records.chain import Record

TITLES = {
    "image": "Image",
    "engine": "Compiled engine",
    "exported": "Exported model",
    "weights": "Weights",
    "data": "Data",
    "guard": "Guard's verdict",
    "regression": "Regression verdict",
}
"""Role of a release → what people call it."""

_VERBS = {
    ("image", "model"): "contains",
    ("engine", "exported"): "was made from",
    ("exported", "weights"): "was made from",
    ("weights", "data"): "was made from",
    ("regression", "candidate"): "judges",
}


def below(found: FoundRelease, claimed: str | None) -> tuple[list[Node], list[Edge]]:
    """Nodes and edges of everything that a release names; `claimed` is the image of the shard's header."""
    release = found.release
    nodes = [_commit(found)]
    edges = [Edge("release", "commit", "was made from", nodes[0].state)]
    keys = {digest: role for role, digest in release.parents.items()}
    for role, digest in sorted(release.parents.items(), key=lambda item: _rank(item[0])):
        record = found.records[digest]
        node = _node(role, record, found, claimed)
        nodes.append(node)
        if role not in ("engine", "exported", "weights", "data"):  # those are reached over what was made of them
            edges.append(Edge("release", role, "names", node.state))
        for name in ROLE_TYPES.get(type(record), {}):
            target = keys.get(record.parents[name])
            if target is not None:
                edges.append(Edge(role, target, _VERBS.get((role, name), "names"), node.state))
    return nodes, edges


def rows(record: Record) -> list[ChainRow]:
    """Everything that a record says; its own digest is called the record's, files have theirs."""
    found = [ChainRow("record", record.digest), ChainRow("record's type", f"{record.TYPE}, version {record.VERSION}")]
    found += [ChainRow(f"parent: {role}", digest) for role, digest in sorted(record.parents.items())]
    found += [ChainRow(name, value) for name, value in sorted(record.parameters.items())]
    optional = {"seed": record.seed, "target": record.target, "machine class": record.machine_class}
    found += [ChainRow(name, str(value)) for name, value in optional.items() if value is not None]
    if record.outputs:
        found.append(ChainRow("files", [output.to_json() for output in record.outputs]))
    return found


def _rank(role: str) -> int:
    order = list(TITLES)
    return order.index(role) if role in order else len(order)


def _commit(found: FoundRelease) -> Node:
    commit = str(found.release.parameters["commit"])
    signed = found.verified is not None
    why = "The signed release names it." if signed else "The release names it, but nobody's signature holds."
    state = NodeState.HOLDS if signed else NodeState.UNKNOWN
    return Node("commit", "Code commit", commit[:12], state, why, (ChainRow("commit", commit),))


def _node(role: str, record: Record, found: FoundRelease, claimed: str | None) -> Node:
    state, why = NodeState.UNKNOWN, "Its bytes have its digest, but nobody's signature on the release holds."
    if found.verified is not None:
        state, why = NodeState.HOLDS, "Its bytes have the digest that the signed release names."
    if role in ("guard", "regression") and state is NodeState.HOLDS:
        why = f"It says that the gate was passed. {why}"  # `verify_release` refuses any other
    things = artifacts(role, record) if role in ARTIFACTS else []
    listed = [ChainRow(f"{role}: {thing.name}", thing.digest) for thing in things[:1]] + rows(record)
    if role == "image" and claimed is not None:
        listed.insert(1, ChainRow("image (the scheduler's claim, equal)", claimed))
        if claimed != record.parameters["image"]:
            state, why = NodeState.FAILS, f"The shard claims to run the image {claimed}, not this one."
            listed[1] = ChainRow("image (the scheduler's claim, another)", claimed)
    # A thing's own digest is what people know it by; a verdict has none but its record's.
    short = (things[0] if len(things) == 1 else record).digest.removeprefix("sha256:")[:12]
    return Node(role, TITLES.get(role, role), short, state, why, tuple(listed))
