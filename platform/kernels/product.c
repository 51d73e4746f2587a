/* See product.h. `columns` is a multiple of 64, rows ≥ 1. */
#include "product.h"

#include <stddef.h>

#include "elementary.h"

/* A tile of ROWS x (TILE * LANES) outputs stays in registers: 24 of AVX-512's 32, 12 of AVX2's 16. */
#define PANEL 16
#if LANES == 16
#define ROWS 6
#define TILE 4
#elif LANES == 8
#define ROWS 6
#define TILE 2
#else
#define ROWS 1
#define TILE 16
#endif
#define WIDTH (TILE * LANES)

typedef enum { PLAIN, GELU, GELU_SUM } After;

typedef struct {
    int inner, columns;
    const float *a, *panels;
    Start start;
    const float *weight;
    float *out;
} Task;

INLINE const float *weights_at(const float *panels, int inner, int k, int column) {
    return panels + (size_t)(column / PANEL) * inner * PANEL + (size_t)k * PANEL + column % PANEL;
}

INLINE void begin(int rows, const Task *t, int row, int column, vec sum[ROWS][TILE]) {
    UNROLL for (int r = 0; r < rows; r++) {
        const float *from = t->start.table ? t->start.table + (size_t)t->start.index[row + r] * t->columns : NULL;
        UNROLL for (int c = 0; c < TILE; c++) {
            int at = column + c * LANES;
            vec x = t->start.bias ? v_load(t->start.bias + at) : v_set(0.0f);
            sum[r][c] = from ? v_add(x, v_load(from + at)) : x;
        }
    }
}

INLINE void end(int rows, const Task *t, int row, int column, vec sum[ROWS][TILE], After after) {
    if (after == GELU_SUM) {
        UNROLL for (int c = 0; c < TILE; c++) {
            vec total = v_load(t->out + column + c * LANES);
            UNROLL for (int r = 0; r < rows; r++)
                total = v_fma(v_set(t->weight ? t->weight[row + r] : 1.0f), v_gelu(sum[r][c]), total);
            v_store(t->out + column + c * LANES, total);
        }
        return;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        float *to = t->out + (size_t)(row + r) * t->columns + column;
        UNROLL for (int c = 0; c < TILE; c++) v_store(to + c * LANES, after == GELU ? v_gelu(sum[r][c]) : sum[r][c]);
    }
}

INLINE void tile(int rows, const Task *t, int row, int column, After after) {
    vec sum[ROWS][TILE];
    const int inner = t->inner;
    const float *a = t->a + (size_t)row * inner, *w[TILE];
    UNROLL for (int c = 0; c < TILE; c++) w[c] = weights_at(t->panels, inner, 0, column + c * LANES);
    begin(rows, t, row, column, sum);
    for (int k = 0; k < inner; k++) {
        vec b[TILE];
        UNROLL for (int c = 0; c < TILE; c++) b[c] = v_load(w[c] + (size_t)k * PANEL);
        UNROLL for (int r = 0; r < rows; r++) {
            vec x = v_set(a[(size_t)r * inner + k]);
            UNROLL for (int c = 0; c < TILE; c++) sum[r][c] = v_fma(x, b[c], sum[r][c]);
        }
    }
    end(rows, t, row, column, sum, after);
}

INLINE void all_tiles(int rows, const Task *t, After after) {
    for (int column = 0; column < t->columns; column += WIDTH) {
        int row = 0;
        for (; row + ROWS <= rows; row += ROWS) tile(ROWS, t, row, column, after);
#if ROWS > 1
        switch (rows - row) {
        case 5: tile(5, t, row, column, after); break;
        case 4: tile(4, t, row, column, after); break;
        case 3: tile(3, t, row, column, after); break;
        case 2: tile(2, t, row, column, after); break;
        case 1: tile(1, t, row, column, after); break;
        default: break;
        }
#endif
    }
}

void product(int rows, int inner, int columns, const float *a, const float *panels, Start start, float *out) {
    Task task = {inner, columns, a, panels, start, NULL, out};
    all_tiles(rows, &task, PLAIN);
}

void product_gelu(int rows, int inner, int columns, const float *a, const float *panels, Start start, float *out) {
    Task task = {inner, columns, a, panels, start, NULL, out};
    all_tiles(rows, &task, GELU);
}

void product_gelu_sum(
    int rows, int inner, int columns, const float *a, const float *panels, Start start, const float *weight,
    float *sum) {
    Task task = {inner, columns, a, panels, start, weight, sum};
    memset(sum, 0, (size_t)columns * sizeof *sum);
    all_tiles(rows, &task, GELU_SUM);
}
