from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.cli.main import app
from helix_lineage.formats.typed import Tensor, decode, encode
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.page.worlds import promoted
from tests.helix_lineage.support import Signer, World, request

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("list", "trace", "replay", "audit", "verify-release", "verify-receipt", "erase", "witness")
GROUPS = ("directory",)


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Line:
    """The command line, as a user types it, in an empty folder."""

    world: World

    def __call__(self, *words: str | Path) -> Answer:
        environment = {key: value for key, value in os.environ.items() if key != "HELIX_STATE"} | {"COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-m", "helix_lineage", *map(str, words)],
            cwd=self.world.root, capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def line(world: World) -> Line:
    (world.root / "trust.json").write_bytes(world.signer.trust_json())
    return Line(world)


def _where(world: World) -> list[str]:
    return ["--log", str(world.log_dir), "--trust", str(world.root / "trust.json")]


def test_trace_writes_a_page_beside_its_answer(world: World, line: Line) -> None:
    (name,) = world.shard([request()])
    answer = line("trace", name, *_where(world), "--html", "trace.html", "--json")
    assert (answer.code, answer.json["id"]) == (0, name)
    assert f"<title>Prediction {name}" in (world.root / "trace.html").read_text()
    refused = line("trace", name, *_where(world), "--html", "no/where/trace.html")
    assert refused.code == 2
    assert refused.err.startswith("error: cannot write the page: there is no folder ")
    assert refused.err.endswith("(no/where/trace.html); name another file\n")


def test_trace_prints_a_tree_and_json(world: World, line: Line) -> None:
    names = world.shard([request(seed=5)])
    tree = line("trace", names[0], *_where(world))
    assert (tree.code, tree.err) == (0, "")
    for text in (
        names[0],
        "code commit   " + "c" * 40,
        "seed          5",
        "signed by",
        "helix.trained-weights",
        "origin",
    ):
        assert text in tree.out
    answer = line("trace", names[0], *_where(world), "--json")
    assert answer.code == 0
    assert answer.json["code_commit"] == "c" * 40


def test_trace_says_no_when_the_signature_does_not_hold(world: World, line: Line) -> None:
    names = world.shard([request()])
    (world.root / "trust.json").write_bytes(Signer().trust_json())
    answer = line("trace", names[0], *_where(world))
    assert answer.code == 1
    assert "no signature is by a key" in answer.out
    absent = line("trace", "0" * 32 + ".1", *_where(world))
    assert absent.code == 2
    assert absent.err.startswith("error: no shard of that id")
    assert line("trace", "x", *_where(world), "--json").json["error"].startswith("not a prediction id")


def test_audit_exits_1_with_findings(world: World, line: Line) -> None:
    names = world.shard([request(count=2)])
    folder = ShardFolder(world.log_dir / names[0].partition(".")[0])
    kept = world.root / "kept"
    shutil.copy(folder.checkpoint, kept)
    fine = line("audit", *_where(world), "--checkpoint", kept)
    assert fine.code == 0
    assert "what is here holds: 1 shards, 4 entries, 2 predictions, 1 checkpoints from elsewhere" in fine.out
    shutil.rmtree(folder.root)
    found = line("audit", *_where(world), "--checkpoint", kept)
    assert found.code == 1
    assert "shard-missing" in found.out
    answer = line("audit", *_where(world), "--checkpoint", kept, "--json")
    assert answer.code == 1
    assert answer.json["findings"][0]["rule"] == "shard-missing"
    assert line("audit", *_where(world), "--checkpoint", "absent").code == 2


def test_verify_release_names_what_does_not_hold(world: World, line: Line) -> None:
    bundle = world.root / "release.sigstore.json"
    bundle.write_bytes(world.bundle)
    trust = ["--trust", str(world.root / "trust.json")]
    image = str(world.chain.release.parameters["image"])
    assert line("verify-release", bundle, *trust, "--image", image).code == 0
    other = line("verify-release", bundle, *trust, "--image", "sha256:" + "0" * 64, "--json")
    assert other.code == 1
    assert "the running image" in other.json["problem"]
    assert line("verify-release", bundle).code == 2
    assert line("verify-release", "absent", *trust).code == 2


def test_erase_forgets_outputs(world: World, line: Line) -> None:
    names = world.shard([request(count=2)])
    answer = line("erase", names[0], "--log", world.log_dir, "--json")
    assert answer.json == {"version": 1, "erased": [names[0]], "link": False}
    assert world.log.find(names[0])[0].payload(1).output is None
    assert "erased 2 outputs, their inputs and salts" in line("erase", "--all", "--link", "--log", world.log_dir).out
    assert world.log.find(names[1])[0].payload(2).input is None
    assert line("erase", "--log", world.log_dir).code == 2


def test_replay_without_an_image_says_so(world: World, line: Line) -> None:
    names = world.shard([request()])
    answer = line("replay", names[0], *_where(world), "--registry", "127.0.0.1:1", "--images", world.root / "images")
    assert answer.code == 2
    assert "could not be replayed" in answer.out
    assert "the image cannot be used: cannot pull the image: " in answer.out
    assert "--registry HOST:PORT" in answer.out
    assert "name predictions, or say --all" in line("replay", *_where(world)).err


def test_outside_a_checkout_the_log_must_be_named(line: Line) -> None:
    answer = line("trace", "0" * 32 + ".1")
    assert answer.code == 2
    assert "add --log DIR" in answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_with_examples_that_parse(line: Line, command: str) -> None:
    answer = line(command, "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    for option in ("--json",):
        assert option in answer.out
    examples = re.findall(rf"helix-lineage {command}.*", answer.out)
    assert examples
    known = set(re.findall(r"--[a-z-]+", answer.out.partition("Options:")[2]))
    for example in examples:
        assert set(re.findall(r"--[a-z-]+", example)) <= known


def test_every_command_is_listed(line: Line) -> None:
    answer = line("--help")
    listed = re.findall(r"^  ([a-z-]+)  ", answer.out.partition("Commands:")[2], re.MULTILINE)
    assert tuple(listed) == (*COMMANDS, *GROUPS)
    assert len(app.registered_commands) == len(COMMANDS)


# ---- the directory, and what was not checked -----------------------------------------------------


def test_a_checkout_compares_its_log_with_its_directory(tmp_path: Path) -> None:
    """The planted fault: the shard's folder is deleted. Without a directory nobody can see that, and it is said."""
    given = promoted(tmp_path / "world")
    state = tmp_path / "checkout/.helix"
    shutil.copytree(given.log.root, state / "log")
    shutil.copytree(given.office.folder, state / "directory")
    (state / "keys").mkdir()
    (state / "keys/trust.json").write_bytes(given.office.trust_json())

    def run(*words: str) -> Answer:
        environment = os.environ | {"COLUMNS": "100", "HELIX_STATE": str(state)}
        done = subprocess.run(
            [sys.executable, "-m", "helix_lineage", *words],
            cwd=tmp_path, capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    whole = run("audit")
    assert (whole.code, whole.out.splitlines()[-2].partition(":")[0]) == (0, "everything holds")
    assert "not checked: whether the directory was rolled back together with the log" in whole.out
    assert "registered as entry" in run("trace", given.id).out
    other_log = run("audit", "--log", str(state / "log"))
    assert other_log.code == 0
    assert "not checked: whether a shard was dropped" in other_log.out
    (shard,) = (state / "log").iterdir()
    shutil.rmtree(shard)
    gone = run("audit", "--json")
    assert (gone.code, [finding["rule"] for finding in gone.json["findings"]]) == (1, ["shard-missing"])
    blind = run("audit", "--log", str(state / "log"), "--json")
    assert (blind.code, blind.json["directory"]) == (0, None)
    assert blind.json["not_checked"][0].startswith("whether a shard was dropped")


def test_warnings_of_the_model_stand_in_the_trace(world: World, line: Line) -> None:
    (item,) = request()
    answer = encode([*decode(item.output), Tensor("warnings", "BYTES", (2,), (b"3 residues read as X", b"one [bold]"))])
    (name,) = world.shard([[replace(item, output=answer)]])
    tree = line("trace", name, *_where(world)).out
    assert "warning       3 residues read as X" in tree
    assert "warning       one [bold]" in tree
    assert line("trace", name, *_where(world), "--json").json["warnings"] == ["3 residues read as X", "one [bold]"]


def test_an_artifact_has_its_own_digest_and_a_record_is_called_so(world: World, line: Line) -> None:
    (name,) = world.shard([request()])
    lines = [text.strip("│├└─ ") for text in line("trace", name, *_where(world)).out.splitlines()]
    parts = world.chain.parts
    for role, digest in (
        ("image", parts["image"].parameters["image"]),
        ("data", parts["data"].outputs[0].digest),
    ):
        at = next(number for number, text in enumerate(lines) if text.startswith(f"{role} ") and "claimed" not in text)
        assert lines[at].split()[1] == digest
        assert lines[at + 1].split()[:2] == ["record", parts[role].digest]


def test_a_list_helps_who_has_no_id(world: World, line: Line) -> None:
    names = world.shard([request(seed=5), request(seed=6, count=2)])
    log = ["--log", str(world.log_dir)]
    shown = line("list", *log)
    assert shown.code == 0
    assert [text.split()[-1] for text in shown.out.splitlines()] == ["id", *names[::-1]]
    assert world.chain.release.digest[:19] in shown.out
    rows = line("list", *log, "--limit", "1", "--json").json["predictions"]
    assert [(row["id"], row["seed"], row["model"], row["index"], row["count"]) for row in rows] == [
        (names[-1], "6", "m", 1, 2)
    ]
    assert line("trace", rows[0]["id"], *_where(world)).code == 0
    assert "no such prediction" in line("list", *log, "--model", "other").out
    assert line("list", *log, "--since", "2100-01-01", "--json").json == {
        "version": 1, "predictions": [], "damaged": []
    }  # fmt: skip
    assert line("list", *log, "--since", "soon").code == 2
