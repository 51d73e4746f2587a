/* exp and GELU from additions, multiplications and fused multiply-adds only: no libm. */
#pragma once

#include "vector.h"

/* exp(x) for x ≤ 0, to 2 units in the last place; below -87 it is exp(-87). */
INLINE vec v_exp(vec x) {
    x = v_max(x, v_set(-87.0f));
    vec shifted = v_fma(x, v_set(1.44269504f), v_set(POWER_SHIFT));
    vec n = v_sub(shifted, v_set(POWER_SHIFT));
    /* ln 2 in two parts: the first has few bits, so n times it is exact. */
    vec r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    /* Taylor's series: on |r| ≤ ln(2)/2 its eighth term is below half a unit. */
    vec p = v_set(1.0f / 5040);
    p = v_fma(p, r, v_set(1.0f / 720));
    p = v_fma(p, r, v_set(1.0f / 120));
    p = v_fma(p, r, v_set(1.0f / 24));
    p = v_fma(p, r, v_set(1.0f / 6));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_mul(p, v_power_of_two(shifted));
}

/* From fit_gelu.py. A test compares GELU with erf in float64. */
#define GELU_REACH 5.45f
#define GELU_SCALE 0.0673343995f
#define GELU_TERMS 16
static const float GELU_TERM[GELU_TERMS] = {
    0.12972927f,    -0.0647458062f,  0.0481181956f,  -0.0390056523f, 0.0321005412f,    -0.0258890003f,
    0.0200222466f,  -0.0145789805f,  0.00992128322f, -0.00653940739f, 0.00415774745f,  -0.0020905411f,
    0.000783767794f, -0.000584064566f, 0.000509549222f, -0.000166034416f,
};

/* x * (1/2 + y * P(y²)), y being x clipped to where the normal distribution is neither 0 nor 1. */
INLINE vec v_gelu(vec x) {
    vec y = v_max(v_min(x, v_set(GELU_REACH)), v_set(-GELU_REACH));
    vec t = v_fma(v_mul(y, y), v_set(GELU_SCALE), v_set(-1.0f));
    vec p = v_set(GELU_TERM[GELU_TERMS - 1]);
    UNROLL for (int i = GELU_TERMS - 2; i >= 0; i--) p = v_fma(p, t, v_set(GELU_TERM[i]));
    return v_mul(x, v_fma(y, p, v_set(0.5f)));
}
