"""What is built: everything by checksum, keyed by all that we choose about it."""

from __future__ import annotations

import shutil
from pathlib import Path

from model_to_metal.cluster.images import SPECS
from model_to_metal.cluster.layout import SOURCES
from model_to_metal.cluster.programs import declared


def test_every_module_has_checksums_and_every_program_one_module() -> None:
    modules = declared()
    assert {module.name for module in modules} == {path.parent.name for path in SOURCES.glob("*/go.mod")}
    for module in modules:
        assert (module.source / "go.sum").is_file()
    names = [name for module in modules for name in module.programs]
    names += [link for module in modules for links in module.links.values() for link in links]
    assert len(set(names)) == len(names)
    assert {name for spec in SPECS for name in spec.programs.values()} <= set(names)


def test_a_changed_checksum_source_file_or_choice_is_another_key(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "cluster")
    folder = tmp_path / "cluster"
    before = {module.name: module.key for module in declared(folder)}
    assert before == {module.name: module.key for module in declared()}
    for name, change in (("coredns", "go.sum"), ("helpers", "probe/main.go"), ("kubernetes", "go.mod")):
        with (folder / name / change).open("a") as file:
            file.write("\n")
        after = {module.name: module.key for module in declared(folder)}
        assert {key for key in before if after[key] != before[key]} == {name}
        before = after
    text = (folder / "programs.toml").read_text()
    (folder / "programs.toml").write_text(text.replace('tags = ["seccomp"]', "tags = []"))
    after = {module.name: module.key for module in declared(folder)}
    assert {key for key in before if after[key] != before[key]} == {"runc"}
