"""The life of a serving process: verify, load, open a shard, serve, drain.

Until the release and the files are verified there is no `Core` to ask: every endpoint gets a
NotReadyError that names what is wrong. Nothing is served unverified, and nothing unrecorded.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from helix_lineage.errors import LineageError
from helixserve import runners
from helixserve.errors import HelixServeError, NotReadyError
from helixserve.execution.budget import Budget, memory_bytes
from helixserve.execution.core import Core
from helixserve.integrity import readiness
from helixserve.integrity.readiness import VerifiedImage
from helixserve.model.contract import Contract, load_class
from helixserve.observe.metrics import ServerState
from helixserve.observe.observer import Observer
from helixserve.process import on_terminate
from helixserve.recording.recorder import Recorder
from helixserve.recording.registrar import Registrar
from helixserve.runners import machine
from helixserve.settings import Settings

logger = logging.getLogger("helixserve.server")

_STOPPING = NotReadyError("the server is stopping", where="server", fix="retry at another replica")

MEND_S = 0.5
"""How long after a failure the log is tried again, at first; doubled after each failed try."""
MEND_MOST_S = 8.0


class Server:
    """One per process.

    Args:
        contract: what the endpoints were built from; must be the release's.
        settings: where the files are; read from the environment when missing.
    """

    def __init__(self, contract: Contract, settings: Settings | None = None) -> None:
        self.contract = contract
        self.observer = Observer()
        """Told of every request."""
        self._info = {"model": contract.name}
        self._settings = settings
        self._budget: Budget | None = None
        self._core: Core | None = None
        self._recorder: Recorder | None = None
        self._registrar: Registrar | None = None
        self._mender: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Future[None]] = set()
        self._leaving = False
        self._reason: HelixServeError = NotReadyError("the server is starting", where="server")

    @property
    def settings(self) -> Settings:
        """Where the files are. Raises NotReadyError for a malformed environment."""
        if self._settings is None:
            self._settings = Settings.read()
        return self._settings

    @property
    def budget(self) -> Budget:
        """What all endpoints together keep in memory."""
        if self._budget is None:
            try:
                configured = self.settings.memory
            except NotReadyError:  # what is wrong with the environment is said at every endpoint
                configured = None
            memory = memory_bytes(configured)
            self._budget = Budget(memory, self.contract.limits["request_bytes"])
        return self._budget

    def core(self) -> Core:
        """What answers requests. Raises NotReadyError saying why there is nothing that may.

        While the log takes nothing, nothing is computed either: the answer would be withheld.
        """
        if self._core is None or self._leaving:
            raise _STOPPING if self._leaving else self._reason
        if self._recorder is not None and self._recorder.failure is not None:
            failure = self._recorder.failure
            raise NotReadyError(failure.what, where=failure.where, fix=failure.fix or "retry at another replica")
        return self._core

    def check_ready(self) -> None:
        """Raises NotReadyError when no request should be sent here."""
        self.core()

    def on_change(self, listener: Callable[[], Awaitable[None]]) -> None:
        """Call the listener when `ready` may have changed without a request having come."""
        self._listeners.append(listener)

    @property
    def busy(self) -> bool:
        """Whether a request that was accepted waits for its answer."""
        return self._core is not None and self._core.inside > 0

    def ready(self) -> bool:
        """Whether requests should be sent here."""
        try:
            self.check_ready()
        except HelixServeError:
            return False
        return True

    def state(self) -> ServerState:
        """What a scrape of the metrics tells."""
        recorder = self._recorder
        if recorder is None:
            return ServerState(ready=False, info=self._info)
        entries, size = recorder.measure()
        waiting = 0 if self._core is None else self._core.inside
        return ServerState(self.ready(), waiting, entries, size, {**self._info, "shard": recorder.shard or ""})

    async def start(self) -> None:
        """Become ready, or stay unready with a reason; never raises for what makes a server unready."""
        try:
            self._recorder, self._core = await asyncio.to_thread(self._open)
        except HelixServeError as error:
            # Internal kinds (a model that breaks its contract) also mean: not ready, at every endpoint.
            self._reason = NotReadyError(error.what, where=error.where, fix=error.fix)
        except LineageError as error:
            self._reason = NotReadyError(error.what, where=error.where, fix=error.fix)
        except Exception as error:
            logger.exception("the server cannot start")
            self._reason = NotReadyError(f"the server cannot start: {error}", where=type(error).__name__)
        gc.freeze()  # what the process has now it keeps
        gc.enable()
        if not self.ready():
            logger.error("not ready: %s", self._why())
        # The HTTP server finishes its connections before it tells anybody that it stops.
        on_terminate(self.leave)
        if self._core is not None:
            self._mender = asyncio.create_task(self._mend())

    def leave(self) -> None:
        """From now on refuse new requests, at every endpoint; those accepted are finished. Called at TERM."""
        self._leaving = True
        for listener in self._listeners:
            self._tasks.add(task := asyncio.ensure_future(listener()))
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Finish what was accepted, then end the shard."""
        self._leaving = True
        core, self._core = self._core, None
        if core is not None:
            await core.close()
        if self._mender is not None:
            self._mender.cancel()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
            logger.info("shard %s closed", self._recorder.shard)
        if self._registrar is not None:
            await asyncio.to_thread(self._registrar.close)

    async def _mend(self) -> None:
        """Try the log again while it takes nothing, and tell who watches.

        The server itself looks, with a write that is no entry, because nobody else will: once it is unready, no
        client is sent here whose request could show that there is space again. It looks only while something is
        wrong, so that a healthy server's disk sees requests alone.
        """
        wait, told = MEND_S, self.ready()
        while self._recorder is not None:
            await asyncio.sleep(wait)
            if self._recorder.failure is None:
                wait = MEND_S
            else:
                await asyncio.to_thread(self._recorder.mend)
                wait = MEND_S if self._recorder.failure is None else min(2 * wait, MEND_MOST_S)
            if self.ready() != told:
                told = self.ready()
                logger.warning("now: %s", self._why())
                for listener in self._listeners:
                    await listener()

    def _why(self) -> str:
        try:
            self.core()
        except HelixServeError as error:
            return str(error)
        return "ready"

    def _open(self) -> tuple[Recorder, Core]:
        machine.pin_numpy()
        verified = readiness.load(self.settings, datetime.now(UTC))
        if verified.contract != self.contract:
            raise NotReadyError("the service was built from another contract than the release's", where="model.toml")
        model = load_class(verified.contract).load(verified.artifacts, verified.contract)
        machine_class = machine.confirmed_class(runners.find(verified.contract.runner).machine_class)
        self._registrar = _registrar(self.settings, verified)  # loads code, which is looked at next
        readiness.check_loaded(self.settings, files=verified.files)
        admit = None if self._registrar is None else self._registrar.admit
        recorder = Recorder.open(self.settings.log, verified, machine_class, admit=admit)
        promotion = "local" if verified.promotion is None else verified.promotion.verified.promotion.digest
        logger.info(
            "shard %s, release %s, promotion %s, %s",
            recorder.shard, verified.release.digest, promotion, machine_class,
        )  # fmt: skip
        recorder.on_sync = self.observer.metrics.fsync.observe
        self.observer.shard = lambda: recorder.shard
        self._info = {
            "model": verified.contract.name,
            "release": verified.release.digest,
            "promotion": promotion,
            "image": verified.image,
            "machine_class": machine_class,
        }
        return recorder, Core(model, recorder)


def _registrar(settings: Settings, verified: VerifiedImage) -> Registrar | None:
    """Who tells the directory of this server's shards."""
    if settings.directory is None:
        logger.info("no directory (HELIX_DIRECTORY is not set): nothing but the log says which shards there are")
        return None
    promotion = verified.promotion
    statements = [verified.bundle] if promotion is None else [verified.bundle, promotion.bundle]
    return Registrar(settings.directory, verified.trust, statements, token=settings.directory_token)
