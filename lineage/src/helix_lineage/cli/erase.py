"""`helix-lineage erase`: forget what was answered, keep that it was."""

from __future__ import annotations

from typing import Annotated

import typer

from helix_lineage.cli import options
from helix_lineage.errors import LineageError
from helix_lineage.shard.payload_reader import erase as erase_payload


def erase(
    predictions: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Prediction ids.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every prediction in the log.")] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Erase input and salts too: nobody can replay it, or tell what it was.")
    ] = False,
    log: options.LogOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Overwrite stored outputs with zeros. The log's entries stay, and replay still works.

    With --link the request's input and the salts go too, for all items of the request, for good.

    Examples:

        helix-lineage erase 5e0c36e6a9f0ddc4b1f2a4d6c8e0f123.17

        helix-lineage erase --all
    """
    if bool(predictions) == everything:
        raise LineageError("name predictions, or say --all, not both")
    source = options.open_log(log)
    names = predictions or [
        f"{shard}.{sequence}" for shard in source.shard_ids() for sequence, _ in source.shard(shard).predictions()
    ]
    for name in names:
        shard, sequence = source.find(name)
        erase_payload(shard.folder, sequence, link=link)
    if as_json:
        options.print_json({"version": 1, "erased": names, "link": link})
    else:
        typer.echo(f"erased {len(names)} outputs" + (", their inputs and salts" if link else ""))
