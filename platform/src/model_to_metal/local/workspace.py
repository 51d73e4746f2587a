"""The engine of this machine, put together: checkout, state, workshop, keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from helix_lineage.paths import State
from helix_lineage.records.chain import Record
from helix_lineage.records.store import RecordStore
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline.engine import Engine, ProgressListener, StageRun
from model_to_metal.pipeline.local_executor import LocalExecutor
from model_to_metal.supply_chain import keys, releasing
from model_to_metal.supply_chain.cache_keys import CacheSigner

Progress = Callable[[str], None]


def _silent(_line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A checkout and its state."""

    checkout: Checkout
    state: State

    @classmethod
    def find(cls) -> Workspace:
        """Those of the working folder. Raises CheckoutError outside a checkout."""
        return cls(Checkout.find(), State.find())

    @property
    def store(self) -> RecordStore:
        """Where records and files lie."""
        return RecordStore(self.state.store)

    def engine(self, listener: ProgressListener | None = None, report: Progress = _silent) -> Engine:
        """The engine; `report` is given the lines that Nix and the tools write."""

        def sign(stage_run: StageRun, release: Record) -> None:
            releasing.sign(self.checkout, self.state, release, stage_run.parents, report)

        executor = LocalExecutor(
            self.state, sign=sign, is_signed=lambda release: releasing.is_signed(self.state, release), report=report
        )
        return Engine(
            self.checkout,
            self.state,
            executor,
            cache_signer=self._cache_signer(),
            before_release=self._may_release,
            builder=lambda: keys.signer(self.state).builder,
            listener=listener,
        )

    def _may_release(self) -> None:
        """Raises KeysError before anything is built, where the release could not be signed in the end."""
        keys.signer(self.state)
        keys.cache_signer(self.state)

    def _cache_signer(self) -> CacheSigner | None:
        """This machine's cache key. A newcomer who has none yet may check and export: nothing is remembered."""
        return keys.cache_signer(self.state) if (self.state.keys / f"{keys.CACHE}.key").exists() else None
