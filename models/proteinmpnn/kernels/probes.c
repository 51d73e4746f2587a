/* Single kernels by name: for preparing weights, and for the tests that compare variants. */
#include "choice.h"
#include "elementary.h"
#include "geometry.h"
#include "kernels.h"
#include "norm.h"
#include "product.h"

#if defined(HELIX_V4)
EXPORT const char *const helix_variant = "x86-64-v4";
#elif defined(HELIX_V3)
EXPORT const char *const helix_variant = "x86-64-v3";
#else
EXPORT const char *const helix_variant = "scalar";
#endif

/* Python's structs must be as large as these. */
EXPORT const int32_t helix_sizes[] = {sizeof(Network), sizeof(Backbone), sizeof(Encoded), sizeof(Designs)};

enum { PLAIN, GELU, GELU_SUM };

EXPORT void helix_product(
    int32_t after, int32_t rows, int32_t inner, int32_t columns, const float *a, const float *panels,
    const float *bias, const float *table, const int32_t *index, const float *weight, float *out) {
    Start start = {bias, table, index};
    if (after == PLAIN) product(rows, inner, columns, a, panels, start, out);
    if (after == GELU) product_gelu(rows, inner, columns, a, panels, start, out);
    if (after == GELU_SUM) product_gelu_sum(rows, inner, columns, a, panels, start, weight, out);
}

/* x [rows, 128], in place; added may be NULL */
EXPORT void helix_norm(
    int32_t rows, float *x, const float *added, float divisor, const float *scale, const float *shift) {
    for (int i = 0; i < rows; i++)
        norm_row(x + (size_t)i * CHANNELS, added ? added + (size_t)i * CHANNELS : NULL, divisor, (Norm){scale, shift});
}

/* count is a multiple of 16 */
EXPORT void helix_exp(int32_t count, float *x) {
    for (int i = 0; i < count; i += LANES) v_store(x + i, v_exp(v_load(x + i)));
}

EXPORT void helix_gelu(int32_t count, float *x) {
    for (int i = 0; i < count; i += LANES) v_store(x + i, v_gelu(v_load(x + i)));
}

EXPORT void helix_nearest(
    int32_t length, int32_t count, int32_t residue, const float *ca, const float *mask, float *scratch,
    int32_t *index, float *distance) {
    nearest(length, count, residue, ca, mask, scratch, index, distance);
}

/* coordinates [2, 4, 3] → bases [400] of the second residue as the first one's neighbour */
EXPORT void helix_radial(float distance, const float *coordinates, float *bases) {
    Atoms atoms[2];
    place_atoms(2, coordinates, atoms);
    radial_bases(distance, atoms, atoms + 1, bases);
}

EXPORT void helix_log_softmax(const float *logits, float *log_probabilities) {
    log_softmax(logits, log_probabilities);
}

EXPORT int32_t helix_choose(
    const float *log_probabilities, const uint8_t *allowed, double temperature, double uniform) {
    return choose_residue(log_probabilities, allowed, temperature, uniform);
}
