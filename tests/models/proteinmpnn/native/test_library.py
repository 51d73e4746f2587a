"""Each kernel: every variant gives the bits of the scalar reference, and all are near float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from helixserve.errors import ContractError
from proteinmpnn_model.decode import Choice, choose_residue
from proteinmpnn_model.native.library import GELU, GELU_SUM, PLAIN, KernelLibrary
from proteinmpnn_model.native.weights import pack

Variants = dict[str, KernelLibrary]

few = settings(max_examples=40, deadline=None)


def _floats(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def _gelu(x: np.ndarray) -> np.ndarray:
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.astype(np.float64).ravel()])


def _one(found: dict[str, bytes]) -> bytes:
    assert len(set(found.values())) == 1, {name: hash(data) for name, data in found.items()}
    return found["scalar"]


def test_every_variant_says_what_it_is(variants: Variants) -> None:
    assert {"scalar", "x86-64-v3"} <= set(variants)
    assert all(library.variant == name for name, library in variants.items())


@few
@given(
    rows=st.integers(1, 70), inner=st.integers(1, 50), blocks=st.integers(1, 3),
    after=st.sampled_from([PLAIN, GELU, GELU_SUM]), bias=st.booleans(), table=st.booleans(), weigh=st.booleans(),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_products(
    *,
    variants: Variants,
    rows: int,
    inner: int,
    blocks: int,
    after: int,
    bias: bool,
    table: bool,
    weigh: bool,
    seed: int,
) -> None:
    columns = 64 * blocks
    a, w = _floats(seed, rows, inner), _floats(seed + 1, columns, inner)
    index = np.random.default_rng(seed).integers(0, 5, rows).astype(np.int32)
    starts = {
        "bias": _floats(seed + 2, columns) if bias else None,
        "table": _floats(seed + 3, 5, columns) if table else None,
    }
    weight = index.astype(np.float32) if weigh else None
    given_index = index if table else None

    def run(library: KernelLibrary) -> np.ndarray:
        return library.product(a, pack(w), after=after, **starts, index=given_index, weight=weight)

    found = np.frombuffer(_one({name: run(library).tobytes() for name, library in variants.items()}), np.float32)
    wanted = a.astype(np.float64) @ w.T.astype(np.float64)
    wanted += 0 if starts["bias"] is None else starts["bias"]
    wanted += 0 if starts["table"] is None else starts["table"][index]
    if after != PLAIN:
        wanted = _gelu(wanted).reshape(wanted.shape)
    if after == GELU_SUM:
        wanted = (wanted if weight is None else wanted * weight[:, None]).sum(0)
    assert np.abs(found - wanted.ravel()).max() < 2e-5 * max(1.0, np.abs(wanted).max())


@few
@given(rows=st.integers(2, 40), cut=st.integers(1, 39), seed=st.integers(0, 2**32))
def test_a_row_does_not_depend_on_the_others(variants: Variants, rows: int, cut: int, seed: int) -> None:
    a, panels = _floats(seed, rows, 33), pack(_floats(seed + 1, 64, 33))
    for library in variants.values():
        whole = library.product(a, panels, after=GELU)
        parts = [library.product(part, panels, after=GELU) for part in (a[: cut % rows or 1], a[cut % rows or 1 :])]
        assert whole.tobytes() == np.concatenate(parts).tobytes()


@few
@given(rows=st.integers(1, 9), added=st.booleans(), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 2**32))
def test_layer_norm(variants: Variants, rows: int, added: bool, scale: float, seed: int) -> None:
    x, extra = _floats(seed, rows, 128, scale=scale), _floats(seed + 1, rows, 128, scale=scale)
    gain, shift = _floats(seed + 2, 128), _floats(seed + 3, 128)
    found = {}
    for name, library in variants.items():
        copy = x.copy()
        library.call("helix_norm", rows, copy, extra if added else None, 30.0, gain, shift)
        found[name] = copy.tobytes()
    t = x.astype(np.float64) + (extra / 30.0 if added else 0)
    t = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-5) * gain + shift
    assert np.abs(np.frombuffer(_one(found), np.float32).reshape(t.shape) - t).max() < 2e-5


def test_exp_and_gelu(variants: Variants) -> None:
    cases = {
        "helix_exp": (np.linspace(-87, 0, 160000), np.exp, 2.5e-7),
        "helix_gelu": (np.linspace(-9, 9, 160000), None, 4e-7),
    }
    for function, (grid, exact, bound) in cases.items():
        x = grid.astype(np.float32)
        found = {}
        for name, library in variants.items():
            copy = x.copy()
            library.call(function, len(copy), copy)
            found[name] = copy.tobytes()
        values = np.frombuffer(_one(found), np.float32).astype(np.float64)
        wanted = _gelu(x) if exact is None else exact(x.astype(np.float64))
        error = np.abs(values - wanted) / (np.maximum(1.0, np.abs(x)) if exact is None else wanted)
        assert error.max() < bound


def test_special_values_have_the_same_bits(variants: Variants) -> None:
    """Not a number, infinities and signed zeros take the same way in every variant."""
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38], np.float32), 16)
    for function in ("helix_exp", "helix_gelu"):
        found = {}
        for name, library in variants.items():
            copy = x.copy()
            library.call(function, 16, copy)
            found[name] = np.where(np.isnan(copy), np.float32(7), copy).tobytes()
        _one(found)


@few
@given(length=st.integers(1, 90), count=st.integers(1, 48), grid=st.booleans(), seed=st.integers(0, 2**32))
def test_nearest_neighbours(variants: Variants, length: int, count: int, grid: bool, seed: int) -> None:
    """On a grid many residues are equally far: the earlier one comes first."""
    draw = np.random.default_rng(seed)
    count, residue = min(count, length), int(draw.integers(length))
    ca = draw.integers(0, 3, (3, length)).astype(np.float32) if grid else _floats(seed, 3, length, scale=9)
    mask = (draw.random(length) < 0.8).astype(np.float32)
    found = {}
    for name, library in variants.items():
        index, distance = np.zeros(count, np.int32), np.zeros(count, np.float32)
        library.call("helix_nearest", length, count, residue, ca, mask, np.zeros(length, np.float32), index, distance)
        found[name] = index.tobytes() + distance.tobytes()
    squares = (ca[:, residue, None] - ca) ** 2
    far = np.sqrt(((squares[0] + squares[1]) + squares[2]) + np.float32(1e-6)) * mask * mask[residue]
    far = far + (1 - mask * mask[residue]) * far.max()
    wanted = np.argsort(far, kind="stable")[:count]
    assert _one(found) == wanted.astype(np.int32).tobytes() + far[wanted].astype(np.float32).tobytes()


@few
@given(seed=st.integers(0, 2**32))
def test_radial_bases(variants: Variants, seed: int) -> None:
    coordinates = _floats(seed, 2, 4, 3, scale=5)
    found = {}
    for name, library in variants.items():
        out = np.zeros(400, np.float32)
        library.call("helix_radial", 4.5, coordinates, out)
        found[name] = out.tobytes()
    bases = np.frombuffer(_one(found), np.float32).reshape(25, 16)
    n_n = np.sqrt(((coordinates[0, 0] - coordinates[1, 0]).astype(np.float64) ** 2).sum() + 1e-6)
    for row, distance in ((0, 4.5), (1, n_n)):
        wanted = np.exp(-(((distance - np.linspace(2, 22, 16)) / 1.25) ** 2))
        # The same bits on every processor; the worst of 60,000 random pairs is 2.1e-6: the distance itself is float32.
        assert np.abs(bases[row] - wanted).max() < 5e-6


@few
@given(
    values=st.lists(st.floats(-60, 60, width=32), min_size=21, max_size=21), uniform=st.floats(0, 1, exclude_max=True),
    temperature=st.floats(1e-4, 10.0), allowed=st.lists(st.booleans(), min_size=21, max_size=21).filter(any),
)  # fmt: skip
def test_a_choice_is_the_python_ones(
    variants: Variants, values: list[float], uniform: float, temperature: float, allowed: list[bool]
) -> None:
    logits, may = np.array(values, np.float32), np.array(allowed)
    found = {}
    for name, library in variants.items():
        out = np.zeros(21, np.float32)
        library.call("helix_log_softmax", logits, out)
        found[name] = out.tobytes()
    log_p = np.frombuffer(_one(found), np.float32)
    exact = logits - np.log(np.exp(logits.astype(np.float64) - logits.max()).sum()) - np.float64(logits.max())
    assert np.abs(log_p - exact).max() < 1e-5
    choice = Choice(np.array([True]), np.array([uniform]), temperature, may)
    wanted = choose_residue(log_p.astype(np.float64), choice, 0)
    assert {one.call("helix_choose", log_p, may, temperature, uniform) for one in variants.values()} == {wanted}


def test_a_choice_among_what_is_no_number_is_none(variants: Variants) -> None:
    broken, may = np.full(21, np.nan, np.float32), np.ones(21, bool)
    assert {library.call("helix_choose", broken, may, 1.0, 0.5) for library in variants.values()} == {-1}


def test_what_is_no_library_is_refused(libraries: dict[str, bytes]) -> None:
    name, data = next(iter(libraries.items()))
    for broken in (b"", b"not a library", data[:1000]):
        with pytest.raises(ContractError, match="cannot be loaded"):
            KernelLibrary(broken, name)
