"""The atoms of an mmCIF file that count, with the columns that gemmi needs.

Programs write fewer columns than the archive does. What can be told from others is filled in; a
column without which an atom has no meaning is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import gemmi

from helixserve.errors import InvalidInputError
from proteinmpnn_model.structures import notes
from proteinmpnn_model.structures.notes import Notes
from proteinmpnn_model.structures.pdb_file import MODELS, too_many
from proteinmpnn_model.structures.residue_names import SELENOMETHIONINE

_SITE = "_atom_site."
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_BLOCK = re.compile(r"(?<!\S)(?:data_|save_)", re.IGNORECASE)
_NEEDED = (
    ("label_atom_id", "auth_atom_id"),
    ("label_comp_id", "auth_comp_id"),
    ("label_asym_id", "auth_asym_id"),
    ("label_seq_id", "auth_seq_id"),
    ("Cartn_x",),
    ("Cartn_y",),
    ("Cartn_z",),
)
"""Of each row one column must be there."""

Columns = dict[str, list[str]]


def first_atoms(text: str, most_atoms: int | None, most_groups: int, found: Notes) -> gemmi.cif.Block | None:
    """The first block with atoms, less all else: each chain of the first model that it is in. None without atoms.

    What is left out is noted. Raises InvalidInputError naming the column, TooLargeError beyond a limit, and what
    gemmi raises for a text that is not CIF.
    """
    _check_blocks(text)
    blocks = [(block, loop) for block in gemmi.cif.read_string(text) if (loop := _atoms(block)) is not None]
    if not blocks:
        return None
    for block, _ in blocks[1:]:
        found.add(notes.BLOCKS, f"data block {block.name[:40]!r}")
    loop = blocks[0][1]
    if most_atoms is not None and loop.length() > most_atoms:
        raise too_many("atoms", loop.length(), most_atoms)
    columns = _columns(loop)
    _check_needed(columns)
    _check_letters(columns)
    _fill(columns, loop.length())
    columns = _first_models(columns, found)
    _check_numbers(columns, most_groups)
    return _block(blocks[0][0].name, columns)


def _check_blocks(text: str) -> None:
    lower = text.lower()
    if lower.count("data_") + lower.count("save_") > MODELS:  # which also counts what is no block, but is fast
        count = len(_BLOCK.findall(text))
        if count > MODELS:
            raise too_many("blocks", count, MODELS)


def _atoms(block: gemmi.cif.Block) -> gemmi.cif.Loop | None:
    """The loop of the category atom_site."""
    for item in block:
        if item.loop is not None and any(tag.lower().startswith(_SITE) for tag in item.loop.tags):
            return item.loop
    return None


def _columns(loop: gemmi.cif.Loop) -> Columns:
    """Name (without its category; as the dictionary spells it) → values."""
    spelt = {name.lower(): name for names in _NEEDED for name in names}
    spelt |= {
        "pdbx_pdb_ins_code": "pdbx_PDB_ins_code",
        "pdbx_pdb_model_num": "pdbx_PDB_model_num",
        "group_pdb": "group_PDB",
    }
    width, values, found = loop.width(), loop.values, {}
    for at, tag in enumerate(loop.tags):
        name = tag.lower().removeprefix(_SITE)
        found[spelt.get(name, name)] = list(values[at::width])
    return found


def _check_needed(columns: Columns) -> None:
    missing = [" or ".join(_SITE + name for name in names) for names in _NEEDED if not set(names) & set(columns)]
    if missing:
        raise InvalidInputError(
            f"the structure's atoms lack the column {'; '.join(missing)}",
            where="structure",
            fix="write the category atom_site with the columns that the message names",
        )


def _check_letters(columns: Columns) -> None:
    for name, values in columns.items():
        for text in values:
            if not text.isascii():  # gemmi keeps one byte of an insertion code
                raise InvalidInputError(
                    f"{_SITE}{name} holds {text[:20]!r}, with letters beyond ASCII", where="structure"
                )


def _fill(columns: Columns, count: int) -> None:
    """Columns that gemmi asks for, from what is there."""
    fill: list[tuple[str, Callable[[], Sequence[str]]]] = [
        ("id", lambda: [str(number) for number in range(1, count + 1)]),
        ("group_PDB", lambda: ["ATOM"] * count),
        ("label_atom_id", lambda: columns["auth_atom_id"]),
        ("label_comp_id", lambda: columns["auth_comp_id"]),
        ("label_asym_id", lambda: columns["auth_asym_id"]),
        ("type_symbol", lambda: [gemmi.cif.as_string(name)[:1] or "X" for name in columns["label_atom_id"]]),
        ("label_alt_id", lambda: ["."] * count),
    ]
    for name, values in fill:
        if name not in columns:
            columns[name] = list(values())


def _first_models(columns: Columns, found: Notes) -> Columns:
    """The rows of the first model that has their chain."""
    models = columns.get("pdbx_PDB_model_num")
    if models is None or len(set(models)) == 1:
        return columns
    kinds, names = columns["group_PDB"], columns["label_comp_id"]
    # A value means the same with and without quotes.
    rows = [
        (_plain(chain), _plain(model), _plain(kind).upper() == "ATOM" or _plain(name) == SELENOMETHIONINE)
        for chain, model, kind, name in zip(
            columns.get("auth_asym_id", columns["label_asym_id"]), models, kinds, names, strict=True
        )
    ]
    # Waters and ligands of a chain's name, in an earlier model, are no chain yet.
    home: dict[str, str] = {}
    for chain, model, is_protein in rows:
        if is_protein:
            home.setdefault(chain, model)
    kept, again = [], dict[tuple[str, str], None]()
    for at, (chain, model, is_protein) in enumerate(rows):
        if home.setdefault(chain, model) == model:
            kept.append(at)
        elif is_protein:
            again[chain, model] = None
    for chain, model in again:
        found.add(notes.AGAIN, f"chain {chain!r} of model {model}")
    return {name: [values[at] for at in kept] for name, values in columns.items()} | {
        "pdbx_PDB_model_num": ["1"] * len(kept)
    }


def _plain(value: str) -> str:
    return gemmi.cif.as_string(value) if value[:1] in ("'", '"', ";") else value


def _check_numbers(columns: Columns, most_groups: int) -> None:
    for name in ("auth_seq_id", "label_seq_id"):
        # gemmi lets a number wrap around.
        texts = set(columns.get(name, ()))
        wide = sorted(text for text in texts if _INTEGER.fullmatch(text) and not _fits_32_bits(text))
        if wide:
            raise InvalidInputError(
                f"{_SITE}{name} holds {wide[0][:20]}, which is not a residue number", where="structure"
            )
    names = ("auth_asym_id", "label_asym_id", "auth_seq_id", "label_seq_id", "pdbx_PDB_ins_code", "label_comp_id")
    groups = len(set(zip(*(columns[name] for name in names if name in columns), strict=True)))
    if groups > most_groups:
        raise too_many("residues", groups, most_groups)


def _fits_32_bits(text: str) -> bool:
    return len(text) <= 11 and -(2**31) <= int(text) < 2**31


def _block(name: str, columns: Columns) -> gemmi.cif.Block:
    block = gemmi.cif.Block(name)
    loop = block.init_loop(_SITE, list(columns))
    loop.set_all_values(list(columns.values()))
    return block
