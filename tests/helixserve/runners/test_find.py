"""Which runner serves: one that is built in, or a class in the model's own package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helixserve.errors import ContractError
from helixserve.model.contract import Contract
from helixserve.runners import RUNNERS, find, open_runner
from helixserve.runners.interface import Runner
from tests.helixserve.support import TINY

OWN = """
from helixserve.runners.interface import Runner


class Echo(Runner):
    machine_class = "x86-64-v3"

    def __init__(self, graphs, libraries):
        self.names = sorted([*graphs, *libraries])

    def run(self, graph, inputs):
        return {graph: self.names}


NOTHING = 1
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_model").mkdir()
    (tmp_path / "own_model" / "runner.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_model.runner"
    for name in ("own_model", "own_model.runner"):
        sys.modules.pop(name, None)


def test_a_model_brings_a_runner_of_its_own(package: str) -> None:
    opened = open_runner(f"{package}:Echo", {"graph": b""}, {"kernels.so": b""})
    assert opened.run("graph", {}) == {"graph": ["graph", "kernels.so"]}
    assert find(f"{package}:Echo").machine_class == "x86-64-v3"


def test_those_that_are_built_in_are_runners_whose_bits_follow_the_processor() -> None:
    for name in RUNNERS:
        assert issubclass(find(name), Runner)
        assert find(name).machine_class is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_model.runner:NOTHING", "not a subclass"),
        ("own_model.runner:Absent", "cannot be imported"),
        ("own_model.absent:Echo", "cannot be imported"),
        ("tensorrt", "no runner 'tensorrt'"),
    ],
)
def test_what_is_no_runner_is_refused(package: str, name: str, said: str) -> None:
    with pytest.raises(ContractError, match=said) as caught:
        open_runner(name, {})
    assert caught.value.where == "model.toml [serve] runner"


def test_a_runner_from_another_package_is_refused_by_the_contract() -> None:
    text = (TINY / "model.toml").read_text()
    own = text.replace('runner = "onnxruntime"', 'runner = "tiny_model.runner:Own"')
    assert Contract.parse(own).runner == "tiny_model.runner:Own"
    for other in ("os:system", "tiny_model_of_others.runner:Own", "tiny_model:Own"):
        with pytest.raises(ContractError, match="own package"):
            Contract.parse(text.replace('runner = "onnxruntime"', f'runner = "{other}"'))
