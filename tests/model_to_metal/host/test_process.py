from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from model_to_metal.errors import ToolError, ToolMissing
from model_to_metal.host.process import attempt, environment, run, watch

PYTHON = sys.executable


def test_output_and_input_pass_through_whole() -> None:
    data = bytes(range(256)) * 5000
    copy = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    assert run([PYTHON, "-c", copy], stdin=data) == data


def test_a_failure_carries_the_tools_own_complaint() -> None:
    with pytest.raises(ToolError, match="status 7: it is broken") as caught:
        run([PYTHON, "-c", "import sys; print('it is broken', file=sys.stderr); sys.exit(7)"])
    assert caught.value.where is not None
    assert caught.value.where.startswith(PYTHON)


def test_a_status_may_be_the_answer() -> None:
    assert attempt([PYTHON, "-c", "raise SystemExit(3)"]).returncode == 3


def test_a_tool_that_is_absent_is_missing_not_broken() -> None:
    for start in (lambda: run(["no-such-tool"]), lambda: watch(["no-such-tool"], print)):
        with pytest.raises(ToolMissing, match="no-such-tool"):
            start()


def test_a_tool_that_hangs_is_stopped() -> None:
    with pytest.raises(ToolError, match="longer than"):
        run([PYTHON, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_lines_are_told_as_they_come(tmp_path: Path) -> None:
    told: list[str] = []
    watch([PYTHON, "-c", "import sys; print('one'); print('two', file=sys.stderr)"], told.append, cwd=tmp_path)
    assert sorted(told) == ["one", "two"]
    with pytest.raises(ToolError, match="status 1: last words"):
        watch([PYTHON, "-c", "import sys; sys.exit('last words')"], told.append)


def test_a_shell_does_not_read_the_arguments() -> None:
    assert run(["echo", "$HOME; true `id`"]) == b"$HOME; true `id`\n"


@given(
    st.dictionaries(st.sampled_from(["PATH", "HOME", "HELIX_ONE", "HELIX_TWO"]), st.none() | st.just("") | st.just("x"))
)
def test_none_removes_a_variable_and_anything_else_sets_it(extra: dict[str, str | None]) -> None:
    merged = environment(extra)
    for name, value in extra.items():
        assert merged.get(name) == value
