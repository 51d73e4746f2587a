"""The life of a serving process: verify, load, open a shard, serve, drain.

Until the release and the files are verified there is no `Core` to ask: every door gets a
NotReadyError that names what is wrong. Nothing is served unverified, and nothing unrecorded.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from helix_lineage.errors import LineageError
from helixserve import machine, readiness
from helixserve.contract import Contract, load_class
from helixserve.core import Core
from helixserve.errors import HelixServeError, NotReadyError
from helixserve.recorder import Recorder
from helixserve.settings import Settings

logger = logging.getLogger("helixserve.server")


class Server:
    """One per process.

    Args:
        contract: what the doors were built from; must be the release's.
        settings: where the files are; read from the environment when missing.
    """

    def __init__(self, contract: Contract, settings: Settings | None = None) -> None:
        self.contract = contract
        self._settings = settings
        self._core: Core | None = None
        self._recorder: Recorder | None = None
        self._reason: HelixServeError = NotReadyError("the server is starting", where="server")

    @property
    def settings(self) -> Settings:
        """Where the files are. Raises NotReadyError for a malformed environment."""
        if self._settings is None:
            self._settings = Settings.read()
        return self._settings

    def core(self) -> Core:
        """What answers requests. Raises NotReadyError saying why there is nothing that may."""
        if self._core is None:
            raise self._reason
        return self._core

    def check_ready(self) -> None:
        """Raises NotReadyError when no request should be sent here.

        A log that could not be written makes a server unready until a later request can be recorded.
        """
        self.core()
        if self._recorder is not None and self._recorder.failure is not None:
            raise NotReadyError(f"the last answer could not be recorded: {self._recorder.failure}", where="log")

    def ready(self) -> bool:
        """Whether requests should be sent here."""
        try:
            self.check_ready()
        except HelixServeError:
            return False
        return True

    async def start(self) -> None:
        """Become ready, or stay unready with a reason; never raises for what makes a server unready."""
        try:
            self._recorder, self._core = await asyncio.to_thread(self._open)
        except HelixServeError as error:
            # Internal kinds (a model that breaks its contract) also mean: not ready, at every door.
            self._reason = NotReadyError(error.what, where=error.where, fix=error.fix)
        except LineageError as error:
            self._reason = NotReadyError(error.what, where=error.where, fix=error.fix)
        except Exception as error:
            logger.exception("the server cannot start")
            self._reason = NotReadyError(f"the server cannot start: {error}", where=type(error).__name__)
        if self._core is None:
            logger.error("not ready: %s", self._reason)

    async def stop(self) -> None:
        """Finish what was accepted, then end the shard."""
        core, self._core = self._core, None
        self._reason = NotReadyError("the server is stopping", where="server", fix="retry at another replica")
        if core is not None:
            await core.close()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
            logger.info("shard %s closed", self._recorder.shard)

    def _open(self) -> tuple[Recorder, Core]:
        machine.pin_numpy()
        verified = readiness.load(self.settings, datetime.now(UTC))
        if verified.contract != self.contract:
            raise NotReadyError("the service was built from another contract than the release's", where="model.toml")
        model = load_class(verified.contract).load(verified.artifacts, verified.contract)
        machine_class = machine.confirmed_class(verified.contract.runner)
        readiness.check_loaded(self.settings)
        recorder = Recorder.open(self.settings.log, verified, machine_class)
        logger.info("shard %s, release %s, %s", recorder.shard, verified.release.digest, machine_class)
        return recorder, Core(model, recorder)
