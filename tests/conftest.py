"""What holds for every test: which of several workers runs it, and which skips may happen (`skips.toml`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import skips

HERE = Path(__file__).resolve().parent
STRICT = "--strict-skips"

# An example may take as long as a busy machine makes it.
settings.register_profile("helix", deadline=None)
settings.load_profile("helix")


@pytest.fixture
def ram() -> Iterator[Path]:
    """A folder in memory where the machine has such a place: for tests that lay down thousands of small trees."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as folder:
        yield Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make` passes the option; a developer who runs one test by hand need not have every tool."""
    parser.addoption(STRICT, action="store_true", help="a skip that tests/skips.toml does not list is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped and should not be has failed."""
    report = yield
    if item.config.getoption(STRICT):
        _judge(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So has a module that skips itself."""
    report = yield
    if collector.config.getoption(STRICT):
        _judge(report, collector.nodeid)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, a file's tests share one and its fixtures; what is marked `spread` goes to any."""
    for item in (item for item in items if item.path.is_relative_to(HERE)):
        # The Nix build environment has no workers to share tests.
        if item.config.pluginmanager.hasplugin("xdist") and item.get_closest_marker("spread") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(item.config.rootpath).as_posix()))


def _judge(report: pytest.TestReport | pytest.CollectReport, name: str) -> None:
    if report.outcome != "skipped":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not skips.listed(name, reason):
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped, which {skips.FILE.name} does not list: {reason}"
