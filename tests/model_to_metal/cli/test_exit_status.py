"""docs/exit-status.md, cell by cell: what yes, no and could-not-tell are for each command of `helix` itself.

What decides is replaced by its answer, because asking takes minutes (Nix, an image): each has tests of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helix_lineage.records.chain import Promotion
from model_to_metal import errors
from model_to_metal.cli import _pipeline, _promotion, build, demo, doctor, gitops, main, promote, rebuild, verify
from model_to_metal.gitops.manifests import ManifestFault
from model_to_metal.gitops.promote import PromotionResult
from model_to_metal.hermetic.image import BuiltImage, SecondBuild
from model_to_metal.local.doctor import Diagnosis
from model_to_metal.registry.client import Image
from model_to_metal.supply_chain.rebuild import RebuildResult, ReleasedImage
from model_to_metal.supply_chain.verify import Check, VerificationReport
from tests.commands import exit_status
from tests.helix_lineage.support import make_chain
from tests.model_to_metal.project import ROOT, make_project

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CANNOT = errors.PipelineError("planted: it could not be done", fix="helix doctor")
Scenario = Callable[[pytest.MonkeyPatch, int], list[str]]
"""Prepares the answer (0 yes, 1 no, 2 none) and gives the command line."""


def gives(value: Any) -> Callable[..., Any]:
    """A function with that answer; an error is raised."""

    def answer(*_: Any, **__: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


@contextmanager
def _context(*_: Any, **__: Any) -> Iterator[Any]:
    yield SimpleNamespace()


def _gate(command: str, refusal: errors.PipelineError) -> Scenario:
    def prepare(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
        record = make_chain().parts["guard"]
        outcome = SimpleNamespace(domain="laptop", record=record, to_json=dict)
        answer = (dict.fromkeys(("data", "guard", "regress"), outcome), refusal, CANNOT)[status]
        engine = SimpleNamespace(run=gives(answer))
        store = SimpleNamespace(get_record=lambda _digest: record)
        local = SimpleNamespace(engine=lambda *_: engine, store=store)
        monkeypatch.setattr(_pipeline.Workspace, "find", lambda: local)
        return [command, "toy"]

    return prepare


def _build(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    twice = BuiltImage(Path("layout"), DIGEST), SecondBuild("out", 3, 1.0, (2, 1), ())
    answer = (twice, errors.ImageDiffers("planted: layer 1 differs"), CANNOT)[status]
    monkeypatch.setattr(build.image, "build_twice", gives(answer))
    return ["build", "toy", "--twice"]


def _rebuild(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    asked = ReleasedImage("toy", "c" * 40, DIGEST)
    made = RebuildResult(asked, (DIGEST, OTHER, "")[status], 3, 1.0, (), None)
    monkeypatch.setattr(rebuild.Trust, "load", gives(None))
    monkeypatch.setattr(rebuild.rebuilding, "find", gives(asked))
    monkeypatch.setattr(rebuild.rebuilding, "clone", _context)
    monkeypatch.setattr(rebuild.rebuilding, "rebuild", gives(CANNOT if status == 2 else made))
    return ["rebuild", "HEAD"]


def _verify(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    image = Image("127.0.0.1:5070", "helix/toy", DIGEST)
    monkeypatch.setattr(verify.Trust, "load", gives(None))
    monkeypatch.setattr(verify.tools, "ensure", gives(Path("cosign")))
    monkeypatch.setattr(verify, "_opened", lambda *_: _pair(image))
    report = VerificationReport(image, (Check("signature", status == 0, "planted"),))
    monkeypatch.setattr(verify, "verify_image", gives(CANNOT if status == 2 else report))
    return ["verify", f"helix/toy@{DIGEST}"]


@contextmanager
def _pair(image: Image) -> Iterator[tuple[None, Image]]:
    yield None, image


def _promote(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    record = Promotion(
        parents={"release": DIGEST}, parameters={"model": "toy", "environment": "staging", "generation": 1}
    )
    done = PromotionResult(None, "c" * 40, record, changed=False)
    answer = (done, errors.PromotionRefused("planted: the branch does not hold this promotion"), CANNOT)[status]
    monkeypatch.setattr(_promotion, "opened", _context)
    monkeypatch.setattr(promote, "_bundle", gives(b""))
    monkeypatch.setattr(promote.promoting, "promote", gives(answer))
    return ["promote", "toy", "--to", "staging", "--check"]


def _gitops(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    faults = [ManifestFault(*(["planted"] * len(ManifestFault.__dataclass_fields__)))] if status == 1 else []
    monkeypatch.setattr(gitops.Renderer, "ready", gives(None))
    monkeypatch.setattr(gitops.succession, "check", gives([]))
    monkeypatch.setattr(gitops, "check_all", gives(CANNOT if status == 2 else faults))
    return ["gitops", "check"]


def _doctor(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    answer = CANNOT if status == 2 else [Diagnosis("nix", status == 0, "planted", "make setup")]
    monkeypatch.setattr(doctor.examination, "examine", gives(answer))
    return ["doctor"]


def _demo(monkeypatch: pytest.MonkeyPatch, status: int) -> list[str]:
    image = make_chain().parts["image"]
    told = SimpleNamespace(passed=status == 0, to_json=dict)
    part = SimpleNamespace(commit=lambda: "c" * 40, predictions=[{"prediction_id": "x"}], model=Path)
    for name in ("prepare", "rebuild", "check", "design", "trace_back", "replay"):
        monkeypatch.setattr(demo.story, name, gives(part))
    outcomes = {"build": SimpleNamespace(record=image)}
    monkeypatch.setattr(demo.story, "release", gives(CANNOT if status == 2 else outcomes))
    monkeypatch.setattr(demo.story, "Story", gives(told))
    monkeypatch.setattr(demo.container, "serving", _context)
    monkeypatch.setattr(demo.container, "stop_on_terminate", lambda: None)
    monkeypatch.setattr(demo, "_print", gives(None))
    return ["demo"]


ROWS: dict[str, Scenario] = {
    "check": _gate("check", errors.GateRefused("planted: a finding", digest=DIGEST)),
    "regress": _gate("regress", errors.NotReproducible("planted: other bytes than recorded")),
    "build MODEL --twice": _build,
    "rebuild": _rebuild,
    "verify": _verify,
    "promote MODEL --to ENVIRONMENT --check": _promote,
    "gitops check": _gitops,
    "doctor": _doctor,
    "demo": _demo,
}


def test_every_row_of_the_table_is_tried() -> None:
    text = (ROOT / "docs/exit-status.md").read_text()
    named = re.findall(r"^\| `helix ([^`]+)` \|", text, re.MULTILINE)
    assert {name for name in named if not name.startswith("lineage ")} == set(ROWS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project") / "checkout").root


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("status", [0, 1, 2])
def test_each_cell(  # noqa: PLR0917  what pytest gives
    row: str,
    status: int,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("HELIX_STATE", str(tmp_path / "state"))
    words = ROWS[row](monkeypatch, status)
    assert answered(words) == status, capsys.readouterr()
    said = capsys.readouterr()
    told_as_it_runs = row in {"check", "regress", "demo"}  # by the engine and the story, which are replaced here
    assert said.out + said.err or told_as_it_runs
    assert ("planted: it could not be done" in said.err) == (status == 2)
    assert answered([*words, "--json"]) == status
    value = json.loads(capsys.readouterr().out)
    if status == 2:
        assert value["answer"] == "could not tell"
    elif "error" in value:
        assert (value["answer"], status) == ("no", 1)


def answered(words: list[str]) -> int:
    return exit_status(main.main, "helix-in-a-test", *words)


def test_what_a_tool_wrote_is_for_who_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise errors.NixError("nix build failed: no room", raw="error: builder for /nix/store/x.drv\n  > 40 lines")

    monkeypatch.setattr(main, "app", fail)
    assert answered(["build", "toy"]) == 2
    said = capsys.readouterr().err
    assert "nix build failed: no room" in said
    assert "/nix/store" not in said
    assert answered(["--verbose", "build", "toy"]) == 2
    assert "  > 40 lines" in capsys.readouterr().err
