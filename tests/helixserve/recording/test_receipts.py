"""Receipts, asked of a real server and checked with `helix_lineage` alone."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helix_lineage.errors import ShardError, TrustError
from helix_lineage.shard.reader import Log
from helixserve.errors import ForbiddenError, NotReadyError, UnauthenticatedError
from helixserve.recording import receipts
from tests.clients import Address, by_json
from tests.helixserve import support
from tests.helixserve.support import Serving, serving

TOKEN = "7c" * 32


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="module")
def giving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("receipts")
    (folder / "tokens").write_text(f"# who\n{digest('other')}\n{digest(TOKEN).upper()}  # the test\n")
    with serving(support.make_tiny(folder), HELIX_RECEIPT_TOKENS=str(folder / "tokens")) as server:
        yield server


def predict(server: Serving) -> str:
    body = {"values": [1], "seed": 3}
    return str(httpx.post(f"{server.url}/project", json=body).json()["predictions"][0]["prediction_id"])


def ask(server: Serving, prediction: str, *headers: str) -> httpx.Response:
    given = [("authorization", header) for header in headers]
    return httpx.get(f"{server.url}/v2/helix/receipts/{prediction}", headers=given, timeout=30)


OFFLINE = """
import sys
from pathlib import Path
from helix_lineage.evidence.receipt import PredictionReceipt
receipt = PredictionReceipt.parse(Path("receipt.json").read_bytes())
proven = receipt.verify(sys.argv[1])
receipt.check_input(Path("input").read_bytes(), proven)
receipt.check_output(Path("output").read_bytes(), proven)
receipt.check_release(Path("release").read_bytes())
assert not {"helixserve", "numpy", "bentoml"} & set(sys.modules)
print(proven.header.release, proven.entry.seed)
"""


def test_a_receipt_is_checked_offline_against_what_the_client_was_given(
    giving: Serving, contract: object, tmp_path: Path
) -> None:
    address = Address(giving.url, giving.grpc, contract)  # type: ignore[arg-type]
    ((prediction, output),) = by_json(address, "project", {"values": [1.5], "seed": 9})
    given = ask(giving, prediction, f"Bearer {TOKEN}")
    assert given.status_code == 200
    assert given.headers["cache-control"] == "no-store"
    shard, sequence = Log(giving.place.log).find(prediction)
    (tmp_path / "receipt.json").write_bytes(given.content)
    (tmp_path / "input").write_bytes(shard.payload(sequence).input or b"")
    (tmp_path / "output").write_bytes(output)
    (tmp_path / "release").write_bytes(giving.place.release.read_bytes())
    # A process that can reach nothing but `helix_lineage` and these files.
    environment = {"PYTHONPATH": str(support.ROOT / "lineage" / "src"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(
        [*command, prediction], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [shard.header.release, "9"]
    # The same check, of another prediction of this server and of an altered proof.
    for argument, content in (
        (predict(giving), given.content),
        (prediction, given.content.replace(b'"proof":["', b'"proof":["' + b"00" * 32 + b'","')),
    ):
        (tmp_path / "receipt.json").write_bytes(content)
        done = subprocess.run(
            [*command, argument], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "TrustError" in done.stderr


@pytest.mark.parametrize(
    "headers",
    [[], ["Bearer wrong"], ["Bearer"], ["Basic " + TOKEN], [TOKEN], ["Bearer " + digest(TOKEN)],
     ["Bearer " + TOKEN, "Bearer " + TOKEN], ["Bearer " + TOKEN[:-1]]],
)  # fmt: skip
def test_without_a_known_token_there_is_none_whatever_is_asked_for(giving: Serving, headers: list[str]) -> None:
    prediction = predict(giving)
    refusals = [ask(giving, name, *headers) for name in (prediction, "0" * 32 + ".1", "nonsense")]
    assert [refusal.status_code for refusal in refusals] == [401] * 3
    # What is there and what is not look the same.
    assert len({refusal.text for refusal in refusals}) == 1
    assert refusals[0].headers["www-authenticate"] == "Bearer"


def test_a_server_without_a_list_of_tokens_says_why_it_gives_none(tiny: Serving) -> None:
    refused = ask(tiny, predict(tiny), f"Bearer {TOKEN}")
    assert refused.status_code == 403
    assert refused.json()["where"] == "HELIX_RECEIPT_TOKENS"


@pytest.mark.parametrize(
    ("prediction", "status"),
    [("0" * 32 + ".1", 404), ("nonsense", 400), ("..%2f..%2fetc%2fpasswd", 404), ("x" * 32 + ".1", 400)],
)
def test_an_id_that_is_not_here_is_named_so(giving: Serving, prediction: str, status: int) -> None:
    refused = ask(giving, prediction, f"Bearer {TOKEN}")
    assert refused.status_code == status


def test_the_header_of_a_shard_is_no_prediction(giving: Serving) -> None:
    shard = predict(giving).partition(".")[0]
    assert ask(giving, f"{shard}.0", f"Bearer {TOKEN}").status_code == 404
    assert ask(giving, f"{shard}.999999", f"Bearer {TOKEN}").status_code == 404


def test_the_list_is_read_again_and_a_broken_one_opens_nothing(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    with pytest.raises(ForbiddenError, match="cannot be read"):
        receipts.authorise(tokens, [f"Bearer {TOKEN}"])
    tokens.write_text(digest(TOKEN))
    receipts.authorise(tokens, [f"bearer {TOKEN}"])
    tokens.write_text("# nobody\n\n")
    for shown in (f"Bearer {TOKEN}", "Bearer ", ""):
        with pytest.raises(UnauthenticatedError):
            receipts.authorise(tokens, [shown])
    for broken in (digest(TOKEN) + "\nplain-token\n", "ø"):
        tokens.write_text(broken)
        with pytest.raises(ForbiddenError):
            receipts.authorise(tokens, [f"Bearer {TOKEN}"])


def test_the_route_is_documented(giving: Serving) -> None:
    described = httpx.get(f"{giving.url}/docs.json").json()["paths"]["/v2/helix/receipts/{prediction_id}"]["get"]
    assert {"200", "401", "403", "404"} <= set(described["responses"])


@pytest.mark.parametrize("error", [TrustError("no such key"), ShardError("torn"), OSError("gone")])
def test_a_log_that_cannot_be_read_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(receipts, "_await_published", broken)
    with pytest.raises(NotReadyError, match="the shard cannot be read"):
        receipts.receipt(tmp_path, f"{'0' * 32}.0")
