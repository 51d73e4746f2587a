from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from model_to_metal.cache import Cache, Entry, Key

KEY = Key(
    stage="export",
    code="sha256:" + "1" * 64,
    environment="sha256:" + "2" * 64,
    parameters={"model": "toy"},
    parents={"weights": "sha256:" + "3" * 64},
    inputs={"read": "sha256:" + "4" * 64},
    target="cpu",
    machine_class="x86-64-v3",
)
ENTRY = Entry("sha256:" + "5" * 64, "2026-01-01T00:00:00Z")


def test_every_part_of_a_key_counts() -> None:
    others = {
        "stage": "import", "code": "sha256:" + "9" * 64, "environment": "sha256:" + "9" * 64, "parameters": {},
        "parents": {}, "inputs": {}, "target": "gpu", "machine_class": "x86-64-v4",
    }  # fmt: skip
    assert set(others) == {field.name for field in fields(Key)}
    for name, value in others.items():
        assert replace(KEY, **{name: value}).digest != KEY.digest, name  # type: ignore[arg-type]  # one value a field


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_the_order_of_parameters_does_not_count(parameters: dict[str, str]) -> None:
    turned = dict(reversed(parameters.items()))
    assert replace(KEY, parameters=parameters).digest == replace(KEY, parameters=turned).digest


def test_what_was_remembered_is_found_under_its_key_only(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.find(KEY) is None
    cache.remember(KEY, ENTRY)
    assert cache.find(KEY) == ENTRY
    assert cache.find(replace(KEY, target=None)) is None


def test_a_damaged_entry_counts_as_absent(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.remember(KEY, ENTRY)
    (path,) = tmp_path.iterdir()
    for damaged in (b"", b"{", b"[]", b'{"record": "sha256:short", "time": ""}'):
        path.write_bytes(damaged)
        assert cache.find(KEY) is None


def test_a_later_entry_replaces_the_earlier_and_leaves_no_litter(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.remember(KEY, ENTRY)
    later = Entry("sha256:" + "6" * 64, "2026-02-01T00:00:00Z")
    cache.remember(KEY, later)
    assert cache.find(KEY) == later
    assert len(list(tmp_path.iterdir())) == 1
