"""FORMAT.md is what the code does: its tables are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from helix_lineage.attestations import dsse, promotion, release, revocation, trust
from helix_lineage.directory import entries as directory, server
from helix_lineage.formats.typed import ITEM_BYTES
from helix_lineage.records.chain import RECORD_TYPES
from helix_lineage.shard import entries, header, payload
from helix_lineage.tlog import checkpoint, journal, layout

TEXT = (Path(__file__).resolve().parents[2] / "lineage/FORMAT.md").read_text()


def _section(number: str) -> str:
    return re.split(r"\n#+ ", TEXT[TEXT.index(f" {number} ") :])[0]


def _rows(section: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if line.startswith("|")
    ]


def test_record_types_with_parents_and_parameters() -> None:
    rows = {}
    for row in _rows(_section("3.")):
        if named := re.fullmatch(r"`(helix\.[\w-]+)`(?:, version (\d))?", row[0]):
            rows[named[1], int(named[2] or 1)] = row[1:]
    said = {name: (set(re.findall(r"[\w?]+", parents)), set(re.findall(r"\w+", parameters)))
            for name, (parents, parameters) in rows.items()}  # fmt: skip
    real = {
        (kind.TYPE, kind.VERSION): (
            {role if required else f"{role}?" for role, required in kind.PARENTS.items()},
            set(kind.REQUIRED),
        )
        for kind in RECORD_TYPES.values()
    }
    assert said == real


def test_entry_kinds() -> None:
    kinds = {int(row[0]): row[1] for row in _rows(_section("8.2")) if row[0].isdigit()}
    classes: dict[Any, str] = {
        header.ShardHeader: "header", entries.PredictionEntry: "prediction", entries.BatchPlan: "batch plan",
        entries.Close: "close", entries.Recovered: "recovered",
    }  # fmt: skip
    assert kinds == {kind.KIND: name for kind, name in classes.items()}


def test_entry_kinds_of_a_directory() -> None:
    kinds = {int(row[0]): row[1] for row in _rows(_section("11.2")) if row[0].isdigit()}
    classes = {directory.Registration: "shard", directory.Advance: "checkpoint", directory.Ending: "close",
               directory.StatementEntry: "statement"}  # fmt: skip
    assert kinds == {kind.KIND: name for kind, name in classes.items()}


def test_routes_of_a_directory() -> None:
    said = {name for row in _rows(_section("11.1")) for name in re.findall(r"`POST (/[^`]+)`", row[0])}
    routes = server.application(None, Path(), Path()).routes  # type: ignore[arg-type]
    posts = [route for route in routes if isinstance(route, Route) and "POST" in (route.methods or ())]
    real = {re.sub(r"\{\w+\}", "<id>", route.path) for route in posts}
    assert said == real


def test_sizes_of_a_payload_record() -> None:
    cells = [row[0] for row in _rows(_section("8.6"))]
    sizes = [int(number) for cell in cells for number in re.findall(r"\d+", cell)]
    assert sum(sizes) == payload.RECORD_HEAD_BYTES + 4
    assert f"{payload.SEGMENT_HEAD_BYTES} bytes" in TEXT


@pytest.mark.parametrize(
    "text",
    [
        *ITEM_BYTES, *trust.ROLES, *header.MODES, trust.ECDSA, trust.ED25519, dsse.BUNDLE_TYPE, dsse.PAYLOAD_TYPE,
        release.PREDICATE_TYPE, promotion.PREDICATE_TYPE, revocation.PREDICATE_TYPE, checkpoint.SHARD_ORIGIN,
        checkpoint.DIRECTORY_ORIGIN,
        *(f"`{kind}`" for kind in revocation.KINDS), layout.NEW_PREFIX,
        journal.MAGIC.decode().strip() + "\\n", payload.MAGIC.decode().strip() + "\\n",
        str(entries.MAX_ENTRY_BYTES), f"{entries.MAX_PREDICTION_BYTES} bytes",
    ],
)  # fmt: skip
def test_names_and_limits_are_written_down(text: str) -> None:
    assert text in TEXT


def test_files_of_a_shard_are_written_down() -> None:
    folder = layout.ShardFolder(Path("log/x"))
    for path in (folder.lock, folder.journal, folder.checkpoint, folder.recovered, folder.release, folder.torn):
        assert re.search(rf"^  {re.escape(path.name)} ", TEXT, re.MULTILINE), path.name
