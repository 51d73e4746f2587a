/* Rows times a weight matrix, with what comes before and after fused into the tile.
 *
 * An output starts as bias[n] + table[row's index][n] (either may be absent) and then takes
 * a[m][k] * w[k][n] by fused multiply-add for k = 0, 1, 2, …: one element's operations are the same
 * wherever its tile lies and however many rows there are.
 *
 * Weights lie in panels of 16 columns, panel after panel, [columns / 16][inner][16].
 */
#pragma once

#include <stdint.h>

/* What a product's outputs start from. */
typedef struct {
    const float *bias;    /* [columns], or NULL for 0 */
    const float *table;   /* rows of `columns`, or NULL for none */
    const int32_t *index; /* [rows] the row of `table` */
} Start;

/* out [rows, columns] */
void product(int rows, int inner, int columns, const float *a, const float *panels, Start start, float *out);
void product_gelu(int rows, int inner, int columns, const float *a, const float *panels, Start start, float *out);
/* sum [columns] = over rows, in order: weight[row] * GELU(…); each weight is 1 when `weight` is NULL */
void product_gelu_sum(
    int rows, int inner, int columns, const float *a, const float *panels, Start start, const float *weight,
    float *sum);
