/* Layer norm over CHANNELS channels, with the residual that comes before it.
 *
 * CHANNELS, a multiple of 16, is the extent of the model that includes this file.
 */
#pragma once

#include "vector.h"

typedef struct {
    const float *scale, *shift;
} Norm;

#define NORM_EPSILON 1e-5f

/* Sum of x[i] * y[i] over the channels: 16 partial sums in order, then `fold`. */
INLINE float dot_channels(const float *x, const float *y) {
    float part[16];
    for (int lane = 0; lane < 16; lane += LANES) {
        vec sum = v_set(0.0f);
        for (int c = lane; c < CHANNELS; c += 16) sum = v_fma(v_load(x + c), v_load(y + c), sum);
        v_store(part + lane, sum);
    }
    return fold(part);
}

INLINE float sum_channels(const float *x) {
    float part[16];
    for (int lane = 0; lane < 16; lane += LANES) {
        vec sum = v_set(0.0f);
        for (int c = lane; c < CHANNELS; c += 16) sum = v_add(sum, v_load(x + c));
        v_store(part + lane, sum);
    }
    return fold(part);
}

/* x = norm(x + added / divisor), or norm(x) when `added` is NULL. */
INLINE void norm_row(float *x, const float *added, float divisor, Norm norm) {
    float t[CHANNELS];
    vec part = v_set(1.0f / divisor);
    for (int c = 0; c < CHANNELS; c += LANES)
        v_store(t + c, added ? v_fma(v_load(added + c), part, v_load(x + c)) : v_load(x + c));
    vec mean = v_set(sum_channels(t) * (1.0f / CHANNELS));
    for (int c = 0; c < CHANNELS; c += LANES) v_store(t + c, v_sub(v_load(t + c), mean));
    float variance = dot_channels(t, t) * (1.0f / CHANNELS);
    vec inverse = v_set(1.0f / __builtin_sqrtf(variance + NORM_EPSILON));
    for (int c = 0; c < CHANNELS; c += LANES)
        v_store(x + c, v_fma(v_mul(v_load(t + c), inverse), v_load(norm.scale + c), v_load(norm.shift + c)));
}
