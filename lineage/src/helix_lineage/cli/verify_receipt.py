"""`helix-lineage verify-receipt`: does this receipt prove the prediction?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.cli import options
from helix_lineage.errors import TrustError
from helix_lineage.evidence.receipt import PredictionReceipt
from helix_lineage.formats.named import read_named

_OUTPUT_BYTES = 2**30


def verify_receipt(
    prediction: Annotated[str, typer.Argument(metavar="ID", help="The prediction's id, as the server gave it.")],
    receipt: Annotated[
        Path, typer.Argument(metavar="FILE", help="What /v2/helix/receipts/ID answered; - is standard input.")
    ],
    *,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="The typed output that it must open.")] = None,
    release: Annotated[Path | None, typer.Option(metavar="FILE", help="The release bundle that it must name.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check a receipt with no server and no log: entry, proof, signed checkpoint, commitments.

    Exit status: 0 it holds; 1 it does not, and the part is named; 2 could not tell.

    Examples:

        curl -H "authorization: Bearer $TOKEN" http://127.0.0.1:3000/v2/helix/receipts/ID > receipt.json

        helix-lineage verify-receipt ID receipt.json --release release.sigstore.json
    """
    problem = None
    try:
        given = PredictionReceipt.parse(read_named(receipt, "the receipt"))
        proven = given.verify(prediction)
        if output is not None:
            given.check_output(read_named(output, "the output", limit=_OUTPUT_BYTES), proven)
        if release is not None:
            given.check_release(read_named(release, "the release bundle"))
    except TrustError as error:
        problem = str(error)
    if as_json:
        options.print_json({"version": 1, "holds": problem is None, "problem": problem})
    else:
        typer.echo(problem or f"the receipt holds: entry, proof and checkpoint of {prediction}")
    if problem is not None:
        raise typer.Exit(options.FOUND)
