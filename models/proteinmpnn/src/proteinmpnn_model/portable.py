"""exp() of IEEE additions and multiplications only, so that every machine gives the same bits.

numpy's and libm's exp differ from one instruction set to the next; the probabilities that a
residue is drawn from must not.

>>> exp(np.array([0.0, -1.0, -np.inf])).tolist()
[1.0, 0.36787944117144233, 0.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has 21 trailing zero bits, so its product with a small integer is exact.
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_COEFFICIENTS = (
    1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120,
    1 / 24, 1 / 6, 1 / 2, 1.0, 1.0,
)  # fmt: skip
_UNDERFLOW = -745.2


def exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp of values <= 0, -inf included, to within 2 units in the last place. NaN stays NaN."""
    small = values < _UNDERFLOW
    bounded = np.where(small, _UNDERFLOW, values)
    power = np.rint(bounded * _LOG2_E)
    rest = (bounded - power * _LN2_HIGH) - power * _LN2_LOW
    result = np.full_like(rest, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        result = result * rest + coefficient
    with np.errstate(invalid="ignore"):
        exponent = np.where(np.isnan(power), 0.0, power).astype(np.int32)
    return np.where(small, 0.0, np.ldexp(result, exponent))
