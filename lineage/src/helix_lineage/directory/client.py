"""Talks to a directory, and believes nothing that is not proven.

Every answer's inclusion proof and checkpoint are verified, and that the log extends the last
checkpoint seen. A directory that lies to its client raises TrustError; one that says no,
DirectoryRefusal; one that is away, DirectoryAway.

    client = DirectoryClient("http://127.0.0.1:5080", trust)
    client.take(registration(Shard(folder)))
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from helix_lineage.attestations import dsse
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory import bundles
from helix_lineage.directory.entries import Advance, Ending, Entry, Registration, StatementEntry, decode
from helix_lineage.directory.receipt import DirectoryReceipt, ShardState, check_receipt
from helix_lineage.directory.rules import statement_of
from helix_lineage.directory.source import UrlSource, client, fetch
from helix_lineage.directory.witness import newest
from helix_lineage.errors import DirectoryAway, DirectoryError, DirectoryRefusal, RegistrantUnknown, TrustError
from helix_lineage.formats.untrusted import parse_json
from helix_lineage.tlog import checkpoint


class DirectoryClient:
    """One directory, and the last checkpoint that it showed. Not thread-safe.

    Args:
        url: base URL.
        trust: names the directory and its key.
        seen: a signed checkpoint of this directory that was kept.
        token: gives the registrant's token, which only registrations show.
    """

    def __init__(
        self,
        url: str,
        trust: Trust,
        *,
        seen: bytes | None = None,
        token: Callable[[], str] | None = None,
        timeout_s: float = 5.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url, self._trust, self._now = url.rstrip("/"), trust, now
        self._token = token
        self._http = client(url, timeout_s)
        self.source = UrlSource(self._url, self._http)
        self.note = seen
        self.seen: checkpoint.Checkpoint | None = None if seen is None else checkpoint.parse(seen)

    def take(self, body: Registration | Advance | Ending) -> DirectoryReceipt:
        """Send a shard's registration, checkpoint or close; gives the proven receipt."""
        path = "v1/shards"
        if isinstance(body, Advance):
            path += f"/{body.shard}/checkpoints"
        elif isinstance(body, Ending):
            path += f"/{body.shard}/close"
        return self._post(path, body.to_bytes(), body)

    def submit(self, bundle: bytes) -> DirectoryReceipt:
        """Send a signed release, promotion or revocation; gives the proven receipt."""
        return self._post("v1/statements", bundle, statement_of(bundle), bundle)

    def state(self, shard: str) -> ShardState | None:
        """How far the directory says that a shard has come; None when it does not know it. A hint, not evidence."""
        status, data = fetch(self._http, "GET", f"{self._url}/v1/shards/{shard}")
        if status == 404:
            return None
        self._check_status(status, data)
        return ShardState.from_bytes(data)

    def latest(self) -> checkpoint.Checkpoint:
        """The newest checkpoint, which extends the last one seen."""
        note, signed = newest(self.source, self.seen, self._trust, self._now())
        self.seen, self.note = signed, note
        return signed

    def close(self) -> None:
        """Let go of the connection."""
        self.source.close()

    def _post(self, path: str, content: bytes, body: Entry, bundle: bytes | None = None) -> DirectoryReceipt:
        seen = 0 if self.seen is None else self.seen.size
        token = self._token() if self._token is not None and isinstance(body, Registration) else None
        status, data = fetch(self._http, "POST", f"{self._url}/{path}?seen={seen}", content, token)
        if status == 416:
            # It is shorter than what we hold: either it was rolled back, or our copy is of another one.
            self.latest()
            raise DirectoryAway("the directory's tiles lag behind; ask again", where=self._url)
        self._check_status(status, data)
        receipt = DirectoryReceipt.from_bytes(data)
        if isinstance(body, StatementEntry) and bundle is not None:
            body = self._same_statement(receipt, body, bundle)
        signed = check_receipt(receipt, body, self.seen, self._trust, self._now())
        self.seen, self.note = signed, receipt.note
        return receipt

    def _same_statement(self, receipt: DirectoryReceipt, body: StatementEntry, bundle: bytes) -> StatementEntry:
        """The statement that the entry holds, if it is ours or says the same under another signature."""
        held = decode(receipt.entry)[1]
        if not isinstance(held, StatementEntry) or held == body:
            return body
        stored = bundles.own(held, self.source.read(f"v1/statements/{held.digest.hex()}"))
        return held if _says_the_same(stored, bundle) else body

    def _check_status(self, status: int, data: bytes) -> None:
        """Raises DirectoryRefusal or DirectoryAway for anything but success."""
        if status == 200:
            return
        try:
            said = parse_json(data)
            what, where, fix = str(said["error"]), said.get("where"), said.get("fix")
        except (ValueError, KeyError, TypeError, AttributeError):
            what, where, fix = f"it answers {status}", None, None
        if status in (408, 429) or status >= 500:
            raise DirectoryAway(f"the directory cannot take this now: {what}", where=where or self._url)
        kind = {401: RegistrantUnknown, 409: DirectoryRefusal}.get(status, DirectoryError)
        raise kind(f"the directory refuses: {what}", where=where or self._url, fix=fix)


def _says_the_same(stored: bytes, ours: bytes) -> bool:
    try:
        return dsse.claimed_statement(stored) == dsse.claimed_statement(ours)
    except TrustError:
        return False
