from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helix_lineage.attestations.release import complete_chain
from helix_lineage.formats.canonical import dumps, loads
from helix_lineage.paths import State
from helix_lineage.records.chain import GuardVerdict, RegressionVerdict, Release
from helix_lineage.records.store import RecordStore
from model_to_metal.errors import CheckoutError, GateRefused, KeysError, NotReproducible, WorkflowError
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline.engine import Engine, Outcome
from model_to_metal.pipeline.progress import ProgressLines
from model_to_metal.supply_chain.cache_keys import CacheSigner
from tests.model_to_metal.project import Bench, commit, make_cache_signer, make_project

ORDER = ["data", "import", "export", "compile", "guard", "regress", "build", "attest"]


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_project(tmp_path_factory.mktemp("project") / "checkout")


@pytest.fixture
def project(committed: Checkout, tmp_path: Path) -> Checkout:
    return Checkout(Path(shutil.copytree(committed.root, tmp_path / "checkout", symlinks=True)))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def cache_signer(tmp_path: Path) -> CacheSigner:
    return make_cache_signer(tmp_path / "keys")


@pytest.fixture
def engine(project: Checkout, state: State, bench: Bench, cache_signer: CacheSigner) -> Engine:
    return Engine(project, state, bench, cache_signer=cache_signer, clock=clock())


def clock() -> Callable[[], datetime]:
    """A clock that goes on by a minute each time it is asked."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def tick() -> datetime:
        nonlocal now
        now += timedelta(minutes=1)
        return now

    return tick


def statuses(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.status for name, outcome in outcomes.items()}


def test_a_release_is_a_complete_chain_of_records(engine: Engine, project: Checkout, bench: Bench) -> None:
    outcomes = engine.run("toy")
    assert bench.made == ORDER == list(outcomes)
    release = outcomes["attest"].record
    assert isinstance(release, Release)
    assert release.parameters["commit"] == project.commit()
    complete_chain(release, {outcome.record.digest: outcome.record for outcome in outcomes.values()})


def test_what_is_recorded_is_not_made_again(engine: Engine, bench: Bench) -> None:
    first = engine.run("toy")
    bench.made.clear()
    second = engine.run("toy")
    assert bench.made == []
    assert {outcome.record.digest for outcome in second.values()} == {
        outcome.record.digest for outcome in first.values()
    }
    assert set(statuses(first).values()) == {"rebuilt"}
    assert all(second[name].status == f"recorded {first[name].time}" for name in ORDER)


def test_a_change_makes_the_stages_again_that_depend_on_it(engine: Engine, project: Checkout, bench: Bench) -> None:
    engine.run("toy")
    bench.made.clear()
    with (project.root / "models/toy/golden/text.txt").open("a") as file:
        file.write("more\n")
    commit(project.root, "another golden case")
    engine.run("toy")
    assert bench.made == ["guard", "regress", "attest"]


def test_a_stage_whose_output_is_the_same_makes_no_later_stage_again(
    engine: Engine, project: Checkout, bench: Bench
) -> None:
    engine.run("toy", until=["export"])
    bench.made.clear()
    with (project.root / "requirements/host.lock").open("a") as file:
        file.write("# another environment for DVC\n")
    engine.run("toy", until=["export"])
    assert bench.made == ["data"], "the data came out the same, so import and export keep their keys"


def test_lost_files_are_made_again(engine: Engine, state: State, bench: Bench) -> None:
    outcomes = engine.run("toy", until=["export"])
    bench.made.clear()
    path = RecordStore(state.store).path(outcomes["import"].record.outputs[0].digest)
    path.parent.chmod(0o755)
    path.unlink()
    engine.run("toy", until=["export"])
    assert bench.made == ["import"]


def test_a_file_that_was_changed_in_the_store_is_made_again_and_named(
    engine: Engine, state: State, bench: Bench
) -> None:
    outcomes = engine.run("toy", until=["export"])
    bench.made.clear()
    path = RecordStore(state.store).path(outcomes["import"].record.outputs[0].digest)
    path.chmod(0o644)
    path.write_bytes(b"planted")
    again = engine.run("toy", until=["export"])
    assert bench.made == ["import"]
    assert again["import"].ignored == "a file that it names was changed in the store: import.txt"


def test_a_release_uses_no_entry_of_another_domain_and_names_it(
    project: Checkout, state: State, bench: Bench, cache_signer: CacheSigner, tmp_path: Path
) -> None:
    builder = make_cache_signer(tmp_path / "builder", "release", known=[cache_signer])
    Engine(project, state, bench, cache_signer=cache_signer, clock=clock()).run("toy", until=["build"])
    bench.made.clear()
    released = Engine(project, state, bench, cache_signer=builder, clock=clock()).run("toy")
    assert bench.made == ORDER
    said = "it is of the domain 'laptop'; this run takes those of release only"
    assert {name: outcome.ignored for name, outcome in released.items()} == dict.fromkeys(ORDER[:-1], said) | {
        "attest": None
    }
    # The laptop may use what the release builder recorded, but not release it as its own.
    bench.made.clear()
    reader = make_cache_signer(tmp_path / "reader", known=[builder])
    used = Engine(project, state, bench, cache_signer=reader, clock=clock()).run("toy", until=["build"])
    assert bench.made == []
    assert {outcome.domain for outcome in used.values()} == {"release"}
    Engine(project, state, bench, cache_signer=reader, clock=clock()).run("toy")
    assert bench.made == ORDER


@pytest.mark.parametrize("planted", ["unsigned", "tampered", "moved"])
def test_an_entry_that_is_not_believed_is_made_again_and_named(
    engine: Engine, state: State, bench: Bench, planted: str
) -> None:
    engine.run("toy", until=["export"])
    bench.made.clear()
    (path,) = state.cache.glob("export-*.json")
    (other,) = state.cache.glob("import-*.json")
    said = loads(path.read_bytes())
    path.write_bytes(
        {
            "unsigned": dumps({name: value for name, value in said.items() if name != "signature"}),
            "tampered": dumps({**said, "record": loads(other.read_bytes())["record"]}),
            "moved": other.read_bytes(),
        }[planted]
    )
    lines: list[str] = []
    engine._listener = ProgressLines(lines.append)
    again = engine.run("toy", until=["export"])
    assert bench.made == ["export"]
    assert again["export"].ignored
    assert f"export    a cache entry does not count: {again['export'].ignored}" in lines
    assert again["export"].to_json()["ignored"] == again["export"].ignored


def test_a_pull_request_makes_no_release(project: Checkout, state: State, bench: Bench, tmp_path: Path) -> None:
    engine = Engine(
        project, state, bench, cache_signer=make_cache_signer(tmp_path / "pr", "pull-request"), clock=clock()
    )
    with pytest.raises(KeysError, match="a pull request makes no release"):
        engine.run("toy")
    assert bench.made == []
    engine.run("toy", until=["build"])


def test_without_a_key_nothing_is_remembered(project: Checkout, state: State, bench: Bench) -> None:
    engine = Engine(project, state, bench, clock=clock())
    engine.run("toy", until=["export"])
    assert not list(state.cache.glob("*"))
    engine.run("toy", until=["export"])
    assert bench.made == ORDER[:3] * 2


def test_a_release_that_could_not_be_signed_is_refused_first(
    project: Checkout, state: State, bench: Bench, cache_signer: CacheSigner
) -> None:
    def closed() -> None:
        raise KeysError("no key")

    engine = Engine(project, state, bench, cache_signer=cache_signer, before_release=closed, clock=clock())
    with pytest.raises(KeysError):
        engine.run("toy")
    assert bench.made == []
    engine.run("toy", until=["build"])
    assert bench.made == ORDER[:-1]


def test_a_release_whose_signature_is_gone_is_signed_again(engine: Engine, bench: Bench) -> None:
    engine.run("toy")
    bench.made.clear()
    bench.complete = False
    engine.run("toy", until=["build"])
    assert bench.made == ORDER[:-1]


def test_without_the_cache_everything_is_remade_and_compared(engine: Engine, bench: Bench) -> None:
    engine.run("toy")
    bench.made.clear()
    again = engine.run("toy", again=True)
    assert bench.made == ORDER
    assert set(statuses(again).values()) == {"rebuilt"}


def test_other_bytes_the_second_time_are_named(engine: Engine, bench: Bench) -> None:
    engine.run("toy", until=["export"])
    bench.files["import"] = b"not what it was"
    with pytest.raises(NotReproducible, match=r"'import' gave something else: output import\.txt"):
        engine.run("toy", until=["export"], again=True)


def test_a_refusal_is_recorded_and_stops_the_release(engine: Engine, state: State, bench: Bench) -> None:
    case = {"case": "a", "metric": "b", "value": 2, "allowed": 1, "passed": False}
    bench.found["regress"] = {"passed": False, "cases": [case]}
    with pytest.raises(GateRefused) as caught:
        engine.run("toy")
    assert bench.made == ORDER[:6]
    record = RecordStore(state.store).get_record(caught.value.digest)
    assert isinstance(record, RegressionVerdict)
    assert record.parameters["cases"] == [case]
    assert caught.value.failed == (case,)
    assert caught.value.verdict == record.to_json()
    assert "failed cases: 1" in str(caught.value)
    assert "FAIL a: b is 2, allowed 1" in str(caught.value)


def test_what_a_verdict_only_reports_may_differ_the_second_time(engine: Engine, bench: Bench) -> None:
    """It depends on the processor; what is judged does not."""

    def found(value: float, noise: float) -> None:
        case = {"case": "a", "metric": "b", "value": value, "allowed": 1, "passed": True}
        reported = [{"case": "a in float32", "metric": "b", "value": noise}]
        bench.found["regress"] = {"passed": True, "cases": [case], "reported": reported}

    found(0.5, 0.1)
    first = engine.run("toy")["regress"]
    found(0.5, 2.0)
    again = engine.run("toy", again=True)["regress"]
    assert again.rebuilt
    assert again.record == first.record
    found(0.6, 2.0)
    with pytest.raises(NotReproducible, match=r"'regress' gave something else: parameter cases \("):
        engine.run("toy", again=True)


def test_a_refusal_is_asked_again_the_next_time(engine: Engine, bench: Bench) -> None:
    bench.found["guard"] = {"passed": False}
    with pytest.raises(GateRefused):
        engine.run("toy")
    bench.found.clear()
    bench.made.clear()
    assert engine.run("toy")["guard"].rebuilt
    assert bench.made == ["guard", "regress", "build", "attest"]


def test_a_pickle_is_refused_before_anything_is_made(
    engine: Engine, project: Checkout, state: State, bench: Bench
) -> None:
    with (project.root / "models/toy/src/toy_model/model.py").open("a") as file:
        file.write("import pickle\n")
    with pytest.raises(GateRefused) as caught:
        engine.run("toy", until=["export"])
    assert bench.made == []
    record = RecordStore(state.store).get_record(caught.value.digest)
    assert isinstance(record, GuardVerdict)
    assert record.parameters["findings"][0]["rule"] == "no-pickle"


def test_a_dirty_tree_may_do_everything_but_be_released(engine: Engine, project: Checkout, bench: Bench) -> None:
    (project.root / "notes.txt").write_text("not committed")
    with pytest.raises(CheckoutError, match=r"clean tree.*notes\.txt"):
        engine.run("toy")
    assert bench.made == []
    engine.run("toy", until=["regress", "build"])
    assert bench.made == ORDER[:-1]


def test_only_what_is_asked_for_and_what_it_needs_is_made(engine: Engine, bench: Bench) -> None:
    engine.run("toy", until=["import"])
    assert bench.made == ["data", "import"]


def test_an_unknown_stage_is_refused(engine: Engine) -> None:
    with pytest.raises(WorkflowError, match="deploy"):
        engine.run("toy", until=["deploy"])


def test_each_run_is_observed_beside_the_record(engine: Engine, project: Checkout, state: State) -> None:
    outcomes = engine.run("toy")
    engine.run("toy")
    first, second = RecordStore(state.store).observations(outcomes["export"].record.digest)
    assert (first["status"], second["status"]) == ("rebuilt", "recorded")
    assert first["commit"] == project.commit()
    assert first["started"] < second["started"]
    assert first["seconds"] >= 0


def test_what_records_name_by_digest_can_be_looked_up(engine: Engine, state: State) -> None:
    store = RecordStore(state.store)
    for outcome in engine.run("toy").values():
        for name in ("source", "environment"):
            if name in outcome.record.parameters:
                assert b'"files"' in store.read_bytes(outcome.record.parameters[name])
        for digest in dict(outcome.record.parameters.get("locks") or {}).values():
            assert store.has(digest)
    assert store.fsck() == []


def test_a_commit_of_documents_gives_the_same_records_up_to_the_image(
    engine: Engine, project: Checkout, bench: Bench
) -> None:
    before = engine.run("toy")
    bench.made.clear()
    with (project.root / "models/toy/README.md").open("a") as file:
        file.write("One more line.\n")
    commit(project.root, "documents only")
    after = engine.run("toy")
    assert bench.made == ["attest"]
    for name in ORDER[:-1]:
        assert after[name].record == before[name].record
    assert after["attest"].record != before["attest"].record
