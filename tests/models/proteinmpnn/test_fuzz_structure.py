"""Hostile PDB and mmCIF files: each is refused with a sentence, or read into a sound structure, in bounded time.

`fuzz_structure` holds the attack and the independent check; here it runs with hypothesis, which
builds files field by field, and with atheris, which follows the readers' coverage. Both must find
a fault that is planted.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

# The build environment, where the neighbours run too, has neither.
pytest.importorskip("psutil", reason="needs psutil; run: make test-fast")
pytest.importorskip("atheris", reason="needs atheris; run: make test-fast")

from helixserve.errors import InvalidInputError, TooLargeError
from helixserve.model.contract import Contract
from proteinmpnn_model import featurize
from proteinmpnn_model.structures import pdb_file, structure
from tests.campaign import CASES, LONG, Broken, Campaign
from tests.models.proteinmpnn import fuzz_structure

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "models" / "proteinmpnn"

ODD = ("nan", "-nan", "inf", "+inf", "1e308", "1e5", "-1e6", "99999999", "-9999999", "100000.1", ".", "?", "-", "+")
VALUES = st.sampled_from([*ODD, "0", "1.0", "-3.25", ".5", "1.", "1,0", "0x1p3", "1_0", "٣", "1.5(3)", "5e-324"])
NUMBERS = st.sampled_from([*map(str, range(-2, 9))] * 3 + [*("9999", "A000", "zzzz", "", "?", "x", "4294967297")])
WHOLE = ("N", "CA", "C", "O")
ATOMS = st.sampled_from([WHOLE] * 20 + [("N", "CA"), ("N", "N", "CA", "C", "O"), ("ø", "", "N")])
RESIDUES = st.sampled_from([*["ALA", "GLY", "TRP", "MSE"] * 6, "HOH", "X", "ala", "ÅLA"])
CHAIN_NAMES = st.sampled_from([*"ABABABABABABABABABAB", "_", "é", "'"])


@st.composite
def pdb_files(draw: st.DrawFn) -> str:
    """Columns of a PDB file, most of them right."""
    lines = []
    for _ in range(draw(st.integers(1, 5))):
        record = draw(st.sampled_from(["ATOM"] * 6 + ["HETATM", "atom", "ANISOU"]))
        place = f"{draw(CHAIN_NAMES)}{draw(NUMBERS):>4}{draw(st.sampled_from('   AB'))}"
        residue, x = draw(RESIDUES), draw(st.just("1.500") | st.just("2.500") | VALUES)
        lines += [f"{record:<6}    1 {name:^4} {residue:>3} {place}   {x:>8}   2.000   3.000" for name in draw(ATOMS)]
        lines.append(draw(st.sampled_from(["", "", "TER", "ENDMDL", "MODEL        2", "END", "data_x", "\x00", "é"])))
    return draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)


@st.composite
def cif_files(draw: st.DrawFn) -> str:
    """Tables of atoms, most of them right, with columns left out."""
    columns = ["group_PDB", "id", "label_atom_id", "label_comp_id", "label_asym_id", "Cartn_x", "Cartn_y", "Cartn_z"]
    columns += [
        "auth_seq_id",
        "label_seq_id",
        "pdbx_PDB_ins_code",
        "pdbx_PDB_model_num",
        "auth_asym_id",
        "type_symbol",
        "label_alt_id",
    ]
    if draw(st.booleans()):
        columns.remove(draw(st.sampled_from(columns)))
    lines = [draw(st.sampled_from(["data_x", "data_x", "data_x", "data_", "DATA_x", "data_x\ndata_y"])), "loop_"]
    lines += [f"_atom_site.{name}" for name in columns]
    for _ in range(draw(st.integers(1, 5))):
        row = {"group_PDB": draw(st.sampled_from(["ATOM"] * 20 + ["HETATM", "?"])), "id": "1", "type_symbol": "C"}
        row |= {"label_comp_id": draw(RESIDUES), "label_asym_id": draw(CHAIN_NAMES), "auth_asym_id": "A"}
        row |= {
            "auth_seq_id": draw(NUMBERS) or "?",
            "label_seq_id": "1",
            "label_alt_id": ".",
            "Cartn_y": "2",
            "Cartn_z": "3",
        }
        row |= {"pdbx_PDB_ins_code": draw(st.sampled_from(["?"] * 12 + [".", "A", "é", "AB"]))}
        row |= {"pdbx_PDB_model_num": draw(st.sampled_from(["1"] * 20 + ["2", "?", "x"]))}
        row |= {"Cartn_x": draw(st.just("1.500") | st.sampled_from(["1e308", "-1e6", "1.5"]) | VALUES)}
        for name in draw(ATOMS):
            words = row | {"label_atom_id": name or "?"}
            lines.append(
                " ".join(w if re.fullmatch(r"[!-&(-^`-~]+", w := words[column]) else f'"{w}"' for column in columns)
            )
    return "\n".join(lines) + draw(
        st.sampled_from(["\n", "\n", "\n", "\n#\n", "\n;x\n;\n", "\nloop_\n_a.b\n1\n", "\nsave_"])
    )


FILES = {"pdb": pdb_files(), "mmcif": cif_files()}
LONG_RUNS = [pytest.param(name, LONG, marks=pytest.mark.long) for name in FILES]


def run_hypothesis(file_format: str, times: int) -> tuple[Campaign, int]:
    """The campaign, and how many files were taken; Broken from within."""
    campaign, taken = Campaign.of(f"{file_format} hypothesis", times=times), 0
    for part in range(1, times + 1):  # hypothesis remembers every case of a run, which would look like a leak
        taken += _run_part(campaign, file_format, part, campaign.wanted // times)
    return campaign, taken


def _run_part(campaign: Campaign, file_format: str, part: int, examples: int) -> int:
    """So many cases of a campaign; how many files were taken."""
    taken = 0

    @seed(part)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # shrinking takes minutes; the case is printed as it is
        suppress_health_check=list(HealthCheck),
    )
    @given(text=FILES[file_format])
    def one(text: str) -> None:
        nonlocal taken  # which hypothesis keeps no account of
        with campaign.case():
            taken += fuzz_structure.attack(text, file_format)

    one()
    return taken


@pytest.mark.parametrize("file_format", FILES)
def test_files_built_from_hostile_fields(file_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    campaign, taken = run_hypothesis(file_format, 1)
    with capsys.disabled():
        campaign.finish()
    assert 20 < taken < campaign.count - 20


@pytest.mark.long
@pytest.mark.parametrize("file_format", FILES)
def test_ten_times_as_many_files_built_from_hostile_fields(
    file_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        run_hypothesis(file_format, LONG)[0].finish()


@pytest.mark.parametrize("file_format", FILES)
def test_a_reader_that_takes_what_it_should_not_fails_the_same_campaign(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdb_file, "_COORDINATE", re.compile(".*", re.DOTALL))
    monkeypatch.setattr(structure, "_LARGEST_COORDINATE_ANGSTROM", float("inf"))
    with pytest.raises(Broken):
        run_hypothesis(file_format, 1)


@pytest.fixture(scope="module")
def corpus(structures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Beginnings of the golden structure and of real files, a folder a format."""
    folder = tmp_path_factory.mktemp("corpus")
    sources = [*structures.glob("*.pdb"), *structures.glob("*.cif"), MODEL / "golden" / "1ubi.pdb"]
    for path in sources:
        lines = path.read_text().split("\n")
        atoms = [number for number, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))]
        if path.suffix == ".cif":
            start = max(number for number in range(atoms[0]) if lines[number].startswith("loop_"))
            text = "\n".join(["data_x", *lines[start : atoms[0] + 16], "#", ""])
        else:
            text = "\n".join(lines[atoms[0] : atoms[0] + 24])
        kind = folder / ("mmcif" if path.suffix == ".cif" else "pdb")
        kind.mkdir(exist_ok=True)
        (kind / path.name).write_text(text)
    return lambda file_format: folder / file_format


def run_atheris(corpus: Path, file_format: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", fuzz_structure.__name__, file_format, str(corpus), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)


@pytest.mark.parametrize(("file_format", "times"), [("pdb", 1), ("mmcif", 1), *LONG_RUNS])
def test_files_that_coverage_leads_to(
    corpus: Callable[[str], Path], file_format: str, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_atheris(corpus(file_format), file_format, f"--times={times}")
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = re.search(r"atheris: (\d+) cases.*, (\d+) taken", ran.stdout)
    assert said is not None, ran.stdout
    with capsys.disabled():
        print(said.string.strip())
    assert int(said[1]) >= times * CASES[f"{file_format} atheris"]
    assert int(said[2]) > 50


@pytest.mark.parametrize("file_format", FILES)
def test_coverage_leads_to_a_planted_fault(corpus: Callable[[str], Path], file_format: str) -> None:
    ran = run_atheris(corpus(file_format), file_format, "--weaken")
    assert ran.returncode != 0
    assert "Broken" in ran.stdout + ran.stderr


# What the campaigns and a search by hand found, and what each limit of the contract is for.

ATOM = "ATOM  {serial:>5}  {name:<3} {residue} {chain}{number:>4}    {x:>8}   2.000   3.000  1.00  0.00"


def residue(number: int = 1, chain: str = "A", *, x: str = "1.000", name: str = "ALA") -> str:
    atoms = ("N", "CA", "C", "O")
    return "\n".join(ATOM.format(serial=1, name=a, residue=name, chain=chain, number=number, x=x) for a in atoms)


COLUMNS = "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id Cartn_x Cartn_y"
HEAD = "data_x\nloop_\n" + "\n".join(f"_atom_site.{c}" for c in [*COLUMNS.split(), "Cartn_z", "auth_seq_id"]) + "\n"


def cif(rows: int, row: str, *, whole: bool = True) -> str:
    """A table of one whole residue, and of `rows` more atoms; {i} is their number."""
    first = "".join(f"ATOM 0 C {atom} . ALA A 1 1 2 3 1\n" for atom in ("N", "CA", "C", "O")) if whole else ""
    return HEAD + first + "".join(row.format(i=i) for i in range(rows))


def read(text: str, file_format: str = "pdb") -> structure.Structure:
    """As a server reads it."""
    limits = Contract.load(MODEL / "model.toml").limits
    return structure.read_structure(
        text, file_format, residue_limit=limits["residues"], file_limits=structure.FileLimits.of(limits)
    )


LIMITED = {
    "atoms, pdb": ("pdb", lambda n: residue() + "\n" + (residue(name="HOH") + "\n") * ((n - 4) // 4), 250_000, 250_004),
    "atoms, mmcif": ("mmcif", lambda n: cif(n - 4, "HETATM {i} O O . HOH A 1 1 2 3 9\n"), 250_000, 250_001),
    "chains": ("mmcif", lambda n: cif(n - 1, "ATOM {i} N N . ALA C{i} 1 1 2 3 1\n"), 500, 501),
    "characters": ("pdb", lambda n: f"REMARK{'x' * (n - 6)}\n{residue()}", 10_000, 10_001),
    "residues": ("mmcif", lambda n: cif(n - 1, "HETATM {i} O O . HOH A 1 1 2 3 {i}9\n"), 20_000, 20_001),
    "models": ("pdb", lambda n: residue() + "\nENDMDL" * n, 10_000, 10_001),
    "blocks": ("mmcif", lambda n: cif(0, "") + "".join(f"data_{i}\n" for i in range(n - 1)), 10_000, 10_001),
}


@pytest.mark.parametrize("what", LIMITED)
def test_a_file_at_a_limit_is_read_and_one_beyond_it_refused(what: str) -> None:
    file_format, make, most, beyond = LIMITED[what]
    assert len(read(make(most), file_format)) >= 1
    with pytest.raises(TooLargeError, match=rf"{beyond} .*{what.partition(',')[0]}|{what}.*{beyond}") as caught:
        read(make(beyond), file_format)
    assert f"at most {most} are served" in str(caught.value)


@pytest.mark.parametrize(
    ("file_format", "text"),
    [
        ("pdb", lambda: (residue(name="HOH") + "\n") * 250_000),
        ("mmcif", lambda: cif(1_000_000, "ATOM {i} N N . ALA A 1 1 2 3 1\n")),
        ("mmcif", lambda: cif(1_000_000, "ATOM {i} N N . ALA C{i} 1 1 2 3 1\n")),
        ("mmcif", lambda: cif(249_000, "ATOM {i} N N . ALA C{i} 1 1 2 3 1\n")),
        ("mmcif", lambda: cif(249_000, "HETATM {i} O O . HOH A 1 1 2 3 {i}\n")),
        ("mmcif", lambda: "".join(f"data_{i}\n" for i in range(1_000_000))),
        ("pdb", lambda: (residue() + "\nENDMDL\n") * 60_000),
    ],
    ids=["atoms, pdb", "atoms, mmcif", "chains", "chains within", "waters", "blocks", "models"],
)
def test_a_file_of_a_million_things_is_refused_in_seconds(file_format: str, text: Callable[[], str]) -> None:
    """Some took minutes, and would have taken hours: gemmi compares each with all before it."""
    hostile = text()
    started = time.process_time()  # of the processor, however busy the machine is
    with pytest.raises(TooLargeError):
        read(hostile, file_format)
    assert time.process_time() - started < 30


def test_a_letter_cut_in_two_is_refused() -> None:
    """gemmi counts bytes: columns that begin within a letter are no text."""
    assert read(residue()).sequence == "A"
    with pytest.raises(InvalidInputError, match="line 1 holds letters beyond ASCII"):
        read(residue(name="Aé"))
    with pytest.raises(InvalidInputError, match="letters beyond ASCII"):
        read(cif(1, "ATOM 9 N 'é' . ALA A 1 1 2 3 2\n"), "mmcif")
    assert read(f"REMARK é\n{residue()}").sequence == "A"


@pytest.mark.parametrize("number", ["2147483648", "-2147483649", "4294967297", "9" * 5000])
def test_a_residue_number_that_would_wrap_around_is_refused(number: str) -> None:
    with pytest.raises(InvalidInputError, match="not a residue number"):
        read(cif(1, f"ATOM 9 N N . ALA A 1 1 2 3 {number}\n"), "mmcif")
    assert len(read(cif(1, "ATOM 9 N N . ALA A 1 1 2 3 2\n"), "mmcif")) == 2


@pytest.mark.parametrize("x", ["nan", "inf", "-inf", "1e308", "1e5", ""])
def test_coordinates_that_are_no_plain_numbers_are_refused(x: str) -> None:
    with pytest.raises(InvalidInputError, match="line 1: the coordinate in columns 31-38"):
        read(residue(x=x))
    assert read(residue(x="-9999.99")).chains[0].residues[0].atoms["N"][0] == -9999.99


def test_atoms_at_one_point_are_read_and_a_residue_that_is_there_twice_is_refused() -> None:
    """What the first mean is the network's business; test_model shows that its answers stay finite."""
    assert read("\n".join([residue(1), residue(2)])).sequence == "AA"
    for again in (residue(2), residue(2).replace("ALA", "GLY")):
        with pytest.raises(InvalidInputError, match="residue A:2 is there twice"):
            read("\n".join([residue(1), residue(2), again]))


def test_other_models_and_categories_of_an_mmcif_file_are_not_built() -> None:
    columns = HEAD.replace("_atom_site.auth_seq_id\n", "_atom_site.auth_seq_id\n_atom_site.pdbx_PDB_model_num\n")
    rows = "".join(f"ATOM 0 C {atom} . ALA A 1 1 2 3 1 7\n" for atom in ("N", "CA", "C", "O"))
    other = "".join(f"ATOM 0 C {atom} . TRP A 1 not a number {n} {n}\n".replace("not a number", "x y z")
                    for n in range(100, 150) for atom in ("N", "CA"))  # fmt: skip
    assert (
        read(f"{columns}{rows}{other}loop_\n_struct_conn.id\n_struct_conn.ptnr1_auth_seq_id\n1 x\n", "mmcif").sequence
        == "A"
    )


def test_many_chains_and_positions_are_looked_up_at_once() -> None:
    """Four million names against 500 chains took minutes."""
    found = read(cif(499, "ATOM {i} N N . ALA C{i} 1 1 2 3 1\n"), "mmcif")
    started = time.process_time()
    assert featurize.check_chains(found, ["C498"] * 4_000_000) == ["C498"]
    assert time.process_time() - started < 10
