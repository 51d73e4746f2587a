from __future__ import annotations

import grpc
import pytest

from helixserve import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HelixServeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_at_every_door_and_stands_in_the_tree(kind: type[errors.HelixServeError]) -> None:
    assert grpc.StatusCode[kind.grpc_status]
    row = next(line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line)
    assert str(kind.http_status) in row
    assert kind.grpc_status in row
    assert kind.__name__.endswith("Error")


def test_an_error_says_what_where_and_how_to_mend_it() -> None:
    error = errors.TooLargeError("9 values", where="values", fix="send 8")
    assert str(error) == "9 values (values); send 8"
