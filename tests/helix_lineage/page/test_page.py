"""What the page says of a chain, read from its markup; `test_browser.py` reads it as a browser does."""

from __future__ import annotations

import re
import struct
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, strategies
from jinja2 import UndefinedError

from helix_lineage.errors import LineageError, PredictionNotFound
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.values import Values, stored
from helix_lineage.formats.typed import Tensor
from helix_lineage.page import HERE, environment, gather, page
from helix_lineage.page.chain import chain
from helix_lineage.page.evidence import Evidence, Problem
from helix_lineage.page.graph import NodeState
from helix_lineage.page.overview import overview
from helix_lineage.shard.payload_reader import erase
from helix_lineage.shard.reader import Log
from helix_lineage.version import VERSION
from tests.helix_lineage.directory.support import submit
from tests.helix_lineage.page.worlds import Promoted, edit_entry, hostile, promoted
from tests.helix_lineage.support import Signer, World, make_chain, request

EVERY = {
    "prediction", "payload", "checkpoint", "shard", "promotion", "release", "commit", "image", "exported", "weights",
    "data", "guard", "regression", "release-key", "promotion-key", "engine", "directory",
}  # fmt: skip


@pytest.fixture
def whole(tmp_path: Path) -> Promoted:
    return promoted(tmp_path / "whole")


def states(given: Promoted, **options: bool) -> dict[str, NodeState]:
    return {key: node.state for key, node in chain(given.evidence(**options)).nodes.items()}


def test_every_link_of_a_whole_chain_holds(whole: Promoted) -> None:
    graph = chain(whole.evidence())
    assert set(graph.nodes) == EVERY
    assert {node.state for node in graph.nodes.values()} == {NodeState.HOLDS} == {graph.state}
    assert {edge.state for edge in graph.edges} == {NodeState.HOLDS}
    # From the prediction every link can be reached.
    reached, waiting = set(), ["prediction"]
    while waiting:
        key = waiting.pop()
        reached.add(key)
        waiting += [edge.target for edge in graph.edges if edge.source == key and edge.target not in reached]
    assert reached == EVERY


def test_all_evidence_is_on_the_page(whole: Promoted) -> None:
    shown = whole.page().decode()
    chained = whole.office.chain
    shard, sequence = whole.log.find(whole.id)
    inclusion = shard.inclusion(sequence)
    wanted = [*chained.records, chained.release.digest, whole.promotion, "c" * 40]
    wanted += [node.hex() for node in inclusion.proof] + [inclusion.leaf.hex(), inclusion.checkpoint.root.hex()]
    wanted += [shard.header.public_key.hex(), whole.office.origin]
    wanted += [key.key_id for key in whole.trust.keys if key.role in ("releaser", "promoter")]
    assert [value for value in wanted if value not in shown] == []


def test_the_same_chain_gives_the_same_bytes(whole: Promoted) -> None:
    assert whole.page() == whole.page()


def test_an_edited_entry_does_not_hold(whole: Promoted) -> None:
    edit_entry(whole)
    found = states(whole)
    assert found["prediction"] is NodeState.FAILS
    assert found["checkpoint"] is NodeState.UNKNOWN
    assert "the entry is not the one under the signed checkpoint" in whole.page().decode()
    assert "<title>Prediction " + whole.id + ": does not hold</title>" in whole.page().decode()


def test_an_edited_header_leaves_nothing_to_believe(whole: Promoted) -> None:
    shard = whole.folder.rename(whole.folder.with_name("0" * 32))
    other = replace(whole, id=f"{shard.name}.1")
    found = states(other)
    assert found.pop("shard") is NodeState.FAILS
    assert set(found.values()) == {NodeState.UNKNOWN}
    assert "the header makes the id" in other.page().decode()


def test_an_erased_payload_says_so(whole: Promoted) -> None:
    shard, sequence = whole.log.find(whole.id)
    erase(shard.folder, sequence)
    assert states(whole)["payload"] is NodeState.ERASED


def test_a_release_that_nobody_signed_is_refused_and_its_records_are_unknown(whole: Promoted) -> None:
    stranger = replace(whole, trust=Signer().trust())
    assert states(stranger)["release"] is NodeState.FAILS


def test_without_a_trust_root_nothing_signed_is_believed(whole: Promoted) -> None:
    found = states(whole, trust=False)
    assert (found["release"], found["promotion"]) == (NodeState.UNKNOWN, NodeState.UNKNOWN)
    assert "release-key" not in found


def test_a_promotion_without_its_bundle_does_not_hold(whole: Promoted) -> None:
    shard, _ = whole.log.find(whole.id)
    shard.folder.promotion.unlink()
    assert states(whole)["promotion"] is NodeState.FAILS


def test_what_the_directory_says_is_shown(whole: Promoted, tmp_path: Path) -> None:
    assert states(whole, directory=False)["directory"] is NodeState.UNCHECKED
    stranger = promoted(tmp_path / "stranger", register=False)
    assert states(stranger)["directory"] is NodeState.FAILS
    assert b"It never heard of this shard." in stranger.page()
    with closing(whole.office.open()) as directory:
        submit(directory, whole.office.revoked("release", whole.office.chain.release.digest))
    assert states(whole)["directory"] is NodeState.FAILS
    assert f"revoked: the release {whole.office.chain.release.digest}" in whole.page().decode()


def test_a_promotion_that_nobody_signed_does_not_hold(whole: Promoted) -> None:
    keys = tuple(key for key in whole.trust.keys if key.role == "releaser")
    assert states(replace(whole, trust=replace(whole.trust, keys=keys)))["promotion"] is NodeState.FAILS


def test_a_server_without_promotion_or_release(tmp_path: Path, signer: Signer) -> None:
    world = World(tmp_path, make_chain(), signer)
    (name,) = world.shard([request()])
    found = {key: node.state for key, node in chain(gather(world.log, name, world.sources)).nodes.items()}
    assert (found.pop("promotion"), found.pop("directory")) == (NodeState.ABSENT, NodeState.UNCHECKED)
    assert set(found.values()) == {NodeState.HOLDS}


def test_a_good_local_prediction_is_headed_green_and_says_what_was_not_checked(tmp_path: Path, signer: Signer) -> None:
    world = World(tmp_path, make_chain(), signer)
    (name,) = world.shard([request()])
    given = gather(world.log, name, world.sources)
    assert chain(given).state is NodeState.HOLDS
    first = overview(given, chain(given))
    assert [sentence.partition(":")[0] for sentence in first.unchecked] == ["Directory", "Promotion", "Replay"]
    shown = page(given).decode()
    assert 'class="verdict holds"' in shown
    assert all(sentence.replace("'", "&#39;") in shown for sentence in first.unchecked)


def test_the_first_screen_says_what_was_asked_and_answered_when_and_by_what(whole: Promoted) -> None:
    given = whole.evidence()
    first = overview(given, chain(given))
    assert first.asked is not None
    assert first.answered is not None
    assert {value.name: value.short for value in first.asked} == {"seed": "7", "structure": "ATOM", "task": "design"}
    assert {value.name: value.short for value in first.answered} == {"score": "1", "sequence": "MK1"}
    facts = {fact.name: fact.value for fact in first.when + first.made_by}
    assert facts["finished"].startswith("2026-06-01 00:00:00.000 UTC")
    assert facts["code commit"] == "c" * 40
    assert facts["image"] == whole.office.chain.release.parameters["image"]
    assert facts["request"] == given.entry.request_id.hex()  # type: ignore[union-attr]
    assert set(facts) >= {"not before", "not after", "item", "weights", "data", "seed", "machine class"}
    assert (first.verifier, first.trust) == (f"helix-lineage {VERSION}", f"{whole.trust.digest} (4 keys)")
    shown = whole.page().decode()
    assert [
        text for text in (first.trust, first.verifier, *facts.values()) if text.replace("'", "&#39;") not in shown
    ] == []


def test_a_record_is_called_a_record_and_a_thing_has_its_own_digest(whole: Promoted) -> None:
    parts = whole.office.chain.parts
    nodes = chain(whole.evidence()).nodes
    image = {row.name: row.value for row in nodes["image"].rows}
    assert (image["image: manifest"], image["record"]) == (parts["image"].parameters["image"], parts["image"].digest)
    data = {row.name: row.value for row in nodes["data"].rows}
    assert (data["data: weights.pt"], data["record"]) == (parts["data"].outputs[0].digest, parts["data"].digest)
    assert nodes["data"].subtitle == parts["data"].outputs[0].digest.removeprefix("sha256:")[:12]


def answering(whole: Promoted, *tensors: Tensor) -> Evidence:
    return replace(whole.evidence(), values=Values((), tensors))


def test_warnings_stand_before_everything_else(whole: Promoted) -> None:
    shown = page(answering(whole, Tensor("warnings", "BYTES", (2,), (b"one <b>", b"two")))).decode()
    assert shown.index("one &lt;b&gt;") < shown.index("What was asked") < shown.index("What was answered")
    assert "The model warned" not in whole.page().decode()


def test_a_long_value_is_folded_and_a_very_long_one_is_cut(whole: Promoted) -> None:
    numbers = Tensor("p", "FP32", (999,), struct.pack("<999f", *range(999)))
    text = Tensor("structure", "BYTES", (1,), (b"ATOM  1\n" * 10**5,))
    numbers_shown, text_shown = overview(answering(whole, numbers, text), chain(whole.evidence())).answered or ()
    assert numbers_shown.kind == "FP32 999"
    assert numbers_shown.short.endswith("… (999 values)")
    assert numbers_shown.whole == ", ".join(map(str, range(999)))
    assert text_shown.short.startswith("ATOM 1 ATOM 1")
    assert text_shown.whole is not None
    assert text_shown.whole.endswith("… 537,856 characters more")
    assert len(page(answering(whole, numbers, text))) < 10**6


def test_an_erased_answer_is_not_shown(whole: Promoted) -> None:
    shard, sequence = whole.log.find(whole.id)
    erase(shard.folder, sequence)
    assert whole.evidence().values.output is None
    assert "The output is not kept" in whole.page().decode()


def test_an_answer_that_misses_its_commitment_is_not_shown(whole: Promoted) -> None:
    """What somebody else put there must not stand under "what was answered"."""
    shard, sequence = whole.log.find(whole.id)
    entry = replace(shard.prediction(sequence), output_commitment=b"\1" * 32)
    assert stored(shard, sequence, entry).output is None
    assert stored(shard, sequence, entry).input is not None


def test_an_id_that_names_no_prediction_has_no_page(whole: Promoted) -> None:
    shard = whole.id.partition(".")[0]
    for sequence in (0, 4, 99):  # the header, the close entry, nothing
        with pytest.raises(PredictionNotFound):
            gather(whole.log, f"{shard}.{sequence}", ReleaseSources())
    with pytest.raises(PredictionNotFound):
        gather(Log(whole.log.root), "f" * 32 + ".1", ReleaseSources())
    with pytest.raises(LineageError, match="not a prediction id"):
        gather(whole.log, "<script>", ReleaseSources())


class _Shape(HTMLParser):
    """Which elements and attributes there are."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.targets += [str(value) for name, value in attrs if name in ("href", "src", "action")]


def _shape(markup: bytes) -> _Shape:
    found = _Shape()
    found.feed(markup.decode())
    return found


def test_the_page_asks_for_nothing_and_runs_nothing(whole: Promoted) -> None:
    found = _shape(whole.page())
    assert not found.seen & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image"}
    assert not {name for name in found.attributes if name.startswith("on") or name in ("src", "style", "srcdoc")}
    assert all(target.startswith("#") for target in found.targets)
    assert "default-src &#39;none&#39;" in whole.page().decode()
    assert re.search(r"url\((?!#)|@import", whole.page().decode()) is None


def test_records_cannot_break_out(whole: Promoted, tmp_path: Path) -> None:
    hostile_page = hostile(tmp_path / "hostile").page()
    assert _shape(hostile_page).seen == _shape(whole.page()).seen | {"thead", "tbody"}
    assert _shape(hostile_page).attributes == _shape(whole.page()).attributes
    assert b"\xe2\x80\xae" not in hostile_page  # a right-to-left override is shown by its number


def test_without_escaping_the_same_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: text goes into the page as it is."""
    bare = environment()
    bare.autoescape = False
    monkeypatch.setattr("helix_lineage.page.environment", lambda: bare)
    assert {"script", "img"} <= _shape(hostile(tmp_path / "hostile").page()).seen


@given(strategies.text())
def test_any_text_comes_back_as_text(value: str) -> None:
    parser = _Text()
    parser.feed(environment().from_string('<p title="{{ value }}">{{ value }}</p>').render(value=value))
    parser.close()
    assert parser.tags == ["p"]
    assert parser.titles == [parser.data]


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.data += data


def test_what_cannot_be_seen_is_shown_by_its_number() -> None:
    assert environment().from_string("{{ value }}").render(value="<\u202e") == "&lt;\\u{202e}"


def test_what_a_template_does_not_get_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        environment().from_string("{{ absent }}").render()


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def inks_and_papers() -> list[tuple[str, str, str]]:
    """Scheme (light, then dark), ink and paper of each pair of colours in the style sheet, and of each on the page."""
    css = (HERE / "style.css").read_text()
    found = []
    for scheme in re.findall(r":root\{([^}]*)\}", css):
        named = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]{6})", scheme))
        inks = {name.removesuffix("-ink"): colour for name, colour in named.items() if name.endswith("-ink")}
        for name, ink in inks.items():
            found += [(name, ink, named[f"{name}-paper"]), (name, ink, named["page-paper"])]
    return found


def test_every_text_has_contrast() -> None:
    """WCAG 2.2 AAA asks for 7 to 1; labels of arrows stand on the page's paper, not on their state's."""
    pairs = inks_and_papers()
    assert {name for name, _, _ in pairs} == {"page", "card", "quiet", *(state.css for state in NodeState)}
    assert len(pairs) == 2 * 2 * 9
    for name, ink, paper in pairs:
        dark, light = sorted((_luminance(ink), _luminance(paper)))
        assert (light + 0.05) / (dark + 0.05) >= 7, (name, ink, paper)


def test_states_are_told_by_text_too(whole: Promoted) -> None:
    edit_entry(whole)
    shown, nodes = whole.page().decode(), chain(whole.evidence()).nodes.values()
    for state in NodeState:
        boxes = len([node for node in nodes if node.state is state])
        assert shown.count(f">{state.value}</text>") == shown.count(f'data-state="{state.value}"') == boxes


def test_a_page_of_what_could_not_be_read_is_a_page(whole: Promoted) -> None:
    given = whole.evidence()
    for name in ("entry", "inclusion", "found", "promotion"):
        broken = replace(given, **{name: Problem("<b>planted</b>")})
        assert b"&lt;b&gt;planted&lt;/b&gt;" in page(broken)
        assert chain(broken).state is NodeState.FAILS
