"""Fits the polynomial of `elementary.h`'s GELU and prints its coefficients.

    python platform/kernels/fit_gelu.py

GELU(x) = x · Φ(x), and Φ(x) = 1/2 + x · P(x²) with P smooth, so one polynomial in x² serves both
sides. P is fitted on |x| ≤ REACH, beyond which Φ is 0 or 1 to float32; the weight makes the error
of GELU itself even (Lawson's iteration), not that of P.
"""

from __future__ import annotations

import math
import sys

import numpy as np

REACH = 5.45
DEGREE = 15
_POINTS, _ROUNDS = 4000, 80


def fit() -> tuple[np.ndarray, float]:
    """Coefficients in powers of t = 2 x² / REACH² - 1, lowest first, and the largest error of GELU."""
    t = np.cos((np.arange(_POINTS) + 0.5) * math.pi / _POINTS)
    x = REACH * np.sqrt((t + 1) / 2)
    wanted = np.array([0.5 * math.erf(value / math.sqrt(2)) / value for value in x])
    # An error e of P is an error x² e of GELU; near 0 the float32 rounding of 1/2 is larger than that.
    scale = np.maximum(x, 0.3) * np.minimum(x, 4.0)
    basis = np.polynomial.chebyshev.chebvander(t, DEGREE)
    weight = np.ones(_POINTS)
    for _ in range(_ROUNDS):
        row = scale * np.sqrt(weight)
        found = np.linalg.lstsq(basis * row[:, None], wanted * row, rcond=None)[0]
        error = np.abs((basis @ found - wanted) * scale)
        weight *= (error / error.mean() + 1e-3) ** 0.7
        weight /= weight.mean()
    return np.polynomial.chebyshev.cheb2poly(found), float(error.max())


def main() -> int:
    """Print the lines for `elementary.h`."""
    coefficients, error = fit()
    print(f"#define GELU_REACH {REACH}f")  # noqa: T201 - its output is the result
    print(f"#define GELU_SCALE {2 / REACH**2:.9g}f")  # noqa: T201
    print(f"/* error of GELU before rounding: {error:.2g} */")  # noqa: T201
    print("\n".join(f"    {value:.9g}f," for value in coefficients))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
