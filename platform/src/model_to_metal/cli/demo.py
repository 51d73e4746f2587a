"""`helix demo`: the main job end to end, told as a short story."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from helix_lineage.evidence.trace import Trace, artifacts
from helix_lineage.paths import State
from helix_lineage.records.chain import ImageBuild
from model_to_metal.cli import _options
from model_to_metal.errors import CheckoutError
from model_to_metal.hermetic import nix
from model_to_metal.host.checkout import Checkout
from model_to_metal.local import container, demo as story
from model_to_metal.pipeline.progress import ProgressLines

app = typer.Typer()


@app.command()
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Leave the server running until Ctrl-C.")] = False,
    as_json: _options.AsJson = False,
    verbose: _options.Verbose = False,
) -> None:
    """From the last commit to an image, a prediction, its trace and its replay. Touches no branch of yours.

    Exit status: 0 everything held; 1 a check, the trace or a replay did not; 2 could not tell.

    Examples:

        helix demo

        helix demo --serve

        helix demo --json
    """
    container.stop_on_terminate()
    began = time.monotonic()
    # With --json the story is one document on stdout, and progress goes to stderr.
    # Digests are whole on a narrow screen too: the terminal may wrap, nothing is cut.
    console = Console(stderr=as_json, soft_wrap=True, highlight=False, width=200)
    checkout, state = Checkout.find(), State.find()
    if changes := checkout.changes():
        console.print(f"The demo works on the last commit; {len(changes)} uncommitted changes are not in it.")
    # Ports that something else holds are left alone, unless the printed ones are the point.
    ports = container.Ports() if serve else container.free_ports()
    report = console.print if verbose else nix.silent
    clone = story.prepare(checkout, state, console.print)
    outcomes = story.release(clone, state, ProgressLines(console.print), report)
    build = outcomes["build"].record
    if not isinstance(build, ImageBuild):
        raise CheckoutError("the workflow gave no image", where=str(clone.root))
    rebuilt = story.rebuild(clone, state, build, console.print if verbose else _few(console))
    attested = story.check(state, str(build.parameters["image"]))
    with container.serving(state, story.MODEL, ports=ports) as server:
        answer = story.design(server, clone.model(story.MODEL) / story.STRUCTURE)
        names = [str(row["prediction_id"]) for row in answer.predictions]
        found = story.Story(
            commit=clone.commit(),
            outcomes=outcomes,
            rebuild=rebuilt,
            attested=attested,
            server=server,
            answer=answer,
            traced=story.trace_back(state, names[0]),
            replayed=story.replay(state, names),
        )
        if as_json:
            typer.echo(json.dumps(found.to_json()))
        else:
            _print(console, found, time.monotonic() - began, serving=serve)
        if serve:
            _wait(server)
    if not found.passed:
        raise typer.Exit(1)


def _few(console: Console) -> nix.Progress:
    """Of a long build, the names of the steps only."""

    def report(line: str) -> None:
        if line.startswith("building '"):
            console.print(f"  again: {line.split('-', 1)[1].partition('.drv')[0]}")
        elif not line.startswith((" ", "/")) and ">" not in line:
            console.print(f"  {line}")

    return report


def _print(console: Console, found: story.Story, seconds: float, *, serving: bool) -> None:
    console.print()
    console.print(f"[bold]commit[/bold]    {found.commit}")
    how = "now" if found.rebuild.rebuilt else f"recorded {found.rebuild.time}"
    console.print(f"[bold]image[/bold]     {found.server.image}")
    console.print(f"          built twice, equal: {found.rebuild.steps} steps again from an empty store ({how})")
    for check in found.attested.checks:
        mark = "[green]ok[/green]  " if check.passed else "[red]FAIL[/red]"
        console.print(f"[bold]attested[/bold]  {mark} {check.name:13} {escape(check.detail)}")
    for row in found.answer.predictions:
        console.print(f"[bold]design[/bold]    {row['sequence']}  recovery {row['recovery']:.0%}")
        console.print(f"          {row['prediction_id']}")
    console.print()
    console.print(tree(found.traced))
    console.print()
    for verdict in found.replayed:
        word = "[green]same bytes[/green]" if verdict.same else "[red]differs[/red]"
        console.print(f"[bold]replay[/bold]    {verdict.id}  {word}")
        for difference in verdict.differences:
            console.print(f"          {difference.factor}: {escape(difference.detail)}")
    console.print(f"\n{seconds:.0f} s. Try next:")
    for command in next_commands(found):
        console.print(f"  {command}")
    if serving:
        console.print(f"\nThe server stays: HTTP {found.server.http}, gRPC {found.server.grpc}. Ctrl-C stops it.")


def next_commands(found: story.Story) -> list[str]:
    """Three commands that go on from here."""
    helix = ".helix/venv/bin/helix"
    return [
        f"{helix} lineage trace {found.traced.id}",
        f"{helix} lineage replay {found.traced.id} --seed {story.SEED + 1}   # another seed: differs, and is named",
        f"{helix} lineage audit",
    ]


def tree(found: Trace) -> Tree:
    """What made a prediction, from the answer back to the data; the whole of it is in `helix lineage trace`."""
    root = Tree(
        f"[bold]{found.id}[/bold]  {escape(found.header.model)}, item {found.entry.index + 1} of {found.entry.count}"
    )
    root.add(f"seed         {found.entry.seed}, lane {found.entry.lane}, {found.header.machine_class}")
    root.add(f"log          entry {found.inclusion.sequence} of {found.inclusion.checkpoint.size}, included")
    if found.directory is not None and found.directory.index is not None:
        root.add(f"directory    {found.directory.origin}: the shard was registered as entry {found.directory.index}")
    if found.found is None:
        root.add(f"[red]release      {escape(found.problem or '')}[/red]")
        return root
    released = found.found.release
    branch = root.add(f"release      {released.digest}")
    branch.add(f"code commit  {released.parameters['commit']}")
    signer = found.found.verified
    branch.add(
        f"signed by    {signer.key_id} ({escape(signer.builder)})"
        if signer
        else f"[red]{escape(found.problem or '')}[/red]"
    )
    for role in ("image", "engine", "exported", "weights"):
        record = found.record(role)
        if record is not None:
            things = artifacts(role, record)
            branch = branch.add(f"{role:<12} {things[0].digest if len(things) == 1 else f'{len(things)} files'}")
            for thing in things if len(things) > 1 else ():
                branch.add(f"{thing.digest}  {escape(thing.name)}")
            branch.add(f"record       {record.digest}")
            branch.add(f"environment  {record.parameters['environment']}")
    data = found.record("data")
    if data is not None:
        branch.add(f"data         {len(data.outputs)} files; record {data.digest}")
    return root


def _wait(server: container.ServedImage) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        typer.echo("draining", err=True)
