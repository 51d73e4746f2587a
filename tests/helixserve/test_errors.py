from __future__ import annotations

import grpc
import pytest

from helixserve import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HelixServeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_at_every_endpoint_and_stands_in_the_tree(kind: type[errors.HelixServeError]) -> None:
    assert grpc.StatusCode[kind.grpc_status]
    row = next(line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line)
    assert str(kind.http_status) in row
    assert kind.grpc_status in row
    assert kind.__name__.endswith("Error")


def test_an_error_says_what_where_and_how_to_mend_it() -> None:
    error = errors.TooLargeError("9 values", where="values", fix="send 8")
    assert str(error) == "9 values (values); send 8"


def test_a_strangers_text_cannot_make_an_error_long_or_unsayable() -> None:
    error = errors.InvalidInputError("w" * 10**6, where="\ud800" * 10**6, fix="f" * 10**6)
    assert len(str(error).encode()) < 2000
    assert (len(error.what), len(error.where or ""), len(error.fix or "")) == (500, 100, 300)
    whole = errors.InvalidInputError("w" * 500, where="ø" * 100, fix="f" * 300)
    assert str(whole) == f"{'w' * 500} ({'ø' * 100}); {'f' * 300}"
