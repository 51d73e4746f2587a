"""Who may register, and how many: each refusal by its own words, and room again after a while."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from helix_lineage.directory.admission import Bounds, Limiter, Registrants, line, new_token, read_token
from helix_lineage.directory.service import Directory
from helix_lineage.errors import DirectoryBusy, DirectoryError, RegistrantUnknown
from tests.helix_lineage.directory.support import ROOT, Office, submit
from tests.helix_lineage.support import NOW_NS

MINUTE = 60 * 10**9


def test_a_token_names_its_registrant_and_nothing_else_does() -> None:
    tokens = {name: new_token() for name in ("staging", "production")}
    text = "# who may register\n\n" + "".join(line(name, token) for name, token in tokens.items())
    known = Registrants.parse(text)
    for name, token in tokens.items():
        assert known.who([f"Bearer {token}"]) == known.who([f"bearer  {token} "]) == name
        assert token not in text
    good = f"Bearer {tokens['staging']}"
    digest = known.digests["staging"]
    for headers in ([], [""], ["Bearer"], ["Bearer "], [good[:-1]], [good + "0"], [good, good], [f"Bearer {digest}"],
                    [good.replace("Bearer", "Basic")], ["Bearer \xe4"]):  # fmt: skip
        with pytest.raises(RegistrantUnknown, match="no token that this directory knows") as caught:
            known.who(headers)
        assert tokens["staging"] not in str(caught.value)


def test_the_guides_commands_make_a_registrant(tmp_path: Path) -> None:
    guide = (ROOT / "gitops/argocd/README.md").read_text()
    commands = [row.strip() for row in guide.splitlines() if row.endswith(("> token", ">> registrants"))]
    assert len(commands) == 2
    subprocess.run(["bash", "-euc", "umask 077\n" + "\n".join(commands)], cwd=tmp_path, check=True)
    known = Registrants.load(tmp_path / "registrants")
    assert known.who([f"Bearer {read_token(tmp_path / 'token')}"]) == "production"


def test_nobody_is_a_registrant_of_an_empty_file() -> None:
    with pytest.raises(RegistrantUnknown):
        Registrants.parse("").who(["Bearer "])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("laptop", "line 1 .* is not a name and a SHA-256"),
        ("\nlaptop 00", "line 2 .* is not a name"),
        ("a b " + "0" * 64, "line 1 .* is not a name"),
        (f"a {'0' * 64}\na {'1' * 64}", "line 2 .* names a again"),
        ("ä " + "0" * 64, "cannot read the file of registrants"),
    ],
)
def test_a_file_of_registrants_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "registrants"
    with pytest.raises(DirectoryError, match="cannot read the file of registrants"):
        Registrants.load(path)
    path.write_text(text)
    with pytest.raises(DirectoryError, match=words) as caught:
        Registrants.load(path)
    assert (caught.value.where, caught.value.fix) == (str(path), "helix keys init")


def test_a_token_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(DirectoryError, match="cannot read the directory's token"):
        read_token(path)
    path.write_text(token := new_token())
    for mode in (0o600, 0o440):  # a secret that Kubernetes mounts is the group's
        path.chmod(mode)
        assert read_token(path) == token
    path.chmod(0o644)
    with pytest.raises(DirectoryError, match="others can read the directory's token") as caught:
        read_token(path)
    assert caught.value.fix == f"chmod 600 {path}"
    path.chmod(0o600)
    for spoilt in ("", "short", token + " " + token, "\n".join([token, token])):
        path.write_text(spoilt)
        with pytest.raises(DirectoryError, match="is not 32 to 512 characters"):
            read_token(path)


class Counter:
    """A directory with a clock that stands until a test moves it."""

    def __init__(self, root: Path, bounds: Bounds) -> None:
        self.office, self.at = Office(root), NOW_NS
        office = self.office
        self.directory = Directory(
            office.folder, office.origin, office.key, office.trust(), now=lambda: self.at, bounds=bounds
        )
        submit(self.directory, office.released())
        self.shards = 0

    def register(self, registrant: str = "a") -> int:
        self.shards += 1
        return self.directory.take(self.office.shard(100 + self.shards).registration(), registrant=registrant).index


def test_a_registrant_registers_so_many_a_minute(tmp_path: Path) -> None:
    here = Counter(tmp_path, Bounds(registrations=4))
    for _ in range(4):
        here.register()
    with pytest.raises(DirectoryBusy, match="a registers more than 4 shards a minute") as caught:
        here.register()
    assert caught.value.retry_s == 15
    assert here.directory.book.size == 5  # nothing of it was kept
    here.register("b")  # another one is not held up
    again = here.office.shard(101).registration()
    assert here.directory.take(again, registrant="a").index == 1  # what was taken is answered all the same
    here.at += MINUTE // 4
    here.register()
    with pytest.raises(DirectoryBusy):
        here.register()
    here.at += 100 * MINUTE
    for _ in range(4):
        here.register()
    with pytest.raises(DirectoryBusy):
        here.register()


def test_shards_that_never_serve_are_bounded(tmp_path: Path) -> None:
    here = Counter(tmp_path, Bounds(pending_each=3, pending=5))
    for _ in range(3):
        here.register()
    with pytest.raises(DirectoryBusy, match="3 shards of a were registered within an hour, and have not served yet"):
        here.register()
    here.directory.take(here.office.shard(101).grow(1).advance(1))  # it serves
    here.register()
    here.register("b")
    here.register("b")
    with pytest.raises(DirectoryBusy, match="5 shards were registered within an hour") as caught:
        here.register("b")
    assert caught.value.retry_s == 3600
    here.at += 60 * MINUTE
    here.register("b")


def test_after_a_restart_the_bound_of_all_still_holds(tmp_path: Path) -> None:
    here = Counter(tmp_path, Bounds())
    for _ in range(3):
        here.register()
    here.directory.take(here.office.shard(101).end(1))
    limiter = Limiter(Bounds(pending_each=3, pending=3), here.directory.book)
    for _ in range(3):  # the disk was full twice, and it is one shard
        limiter.charge(here.office.shard(200).registration(), "a", here.at)
    with pytest.raises(DirectoryBusy, match="3 shards were registered within an hour"):
        limiter.charge(here.office.shard(201).registration(), "a", here.at)


def test_a_shard_sends_so_many_checkpoints_a_minute_and_its_close_always(tmp_path: Path) -> None:
    here = Counter(tmp_path, Bounds(checkpoints=3))
    shard = here.office.shard()
    here.directory.take(shard.registration())
    sizes = []
    for _ in range(2):
        sizes.append(len(shard.entries))
        here.directory.take(shard.grow().advance(sizes[-1]))
    body = shard.grow().advance(3)
    with pytest.raises(DirectoryBusy, match="the shard sent 3 checkpoints in a minute") as caught:
        here.directory.take(body)
    assert caught.value.retry_s == 60
    here.at += MINUTE
    here.directory.take(body)
    here.directory.take(shard.grow().advance(4))
    here.directory.take(shard.grow().advance(5))
    with pytest.raises(DirectoryBusy):
        here.directory.take(shard.grow().advance(6))
    here.directory.take(shard.end(6))
