"""Forwards ports of this machine's loopback interface to the servers of a cluster, while somebody wants it.

For a browser or a tool that reaches this machine only (an SSH tunnel, an editor's remote window):
on the machine itself the cluster's addresses can be dialled as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

HOST = "127.0.0.1"
_CHUNK = 1 << 16


async def serve(targets: Mapping[str, tuple[str, int]], report: Callable[[str, int], None]) -> None:
    """Forward a free port to each target until cancelled; `report` is given its name and that port."""
    async with contextlib.AsyncExitStack() as stack:
        for name, (host, port) in targets.items():
            server = await stack.enter_async_context(await asyncio.start_server(_to(host, port), HOST, 0))
            report(name, int(server.sockets[0].getsockname()[1]))
        await asyncio.Event().wait()


def _to(host: str, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    return connected


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Either end may hang up at any time; then the other is told, and that is all.
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
