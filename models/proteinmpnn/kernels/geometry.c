/* See geometry.h. */
#include "geometry.h"

#include <stddef.h>

#include "elementary.h"

#define DISTANCE_EPSILON 1e-6f
#define BASES 16

/* The atom of the residue, and that of its neighbour: network.py's ATOM_PAIRS. */
static const uint8_t FIRST[PAIRS] = {0, 2, 3, 4, 1, 1, 1, 1, 0, 0, 0, 4, 4, 3, 0, 2, 3, 4, 2, 3, 4, 2, 3, 2};
static const uint8_t SECOND[PAIRS] = {0, 2, 3, 4, 0, 2, 3, 4, 2, 3, 4, 2, 3, 2, 1, 1, 1, 1, 0, 0, 0, 4, 4, 3};

static void place_cb(float atom[ATOMS][3]) {
    float n_ca[3], ca_c[3];
    for (int x = 0; x < 3; x++) {
        n_ca[x] = atom[1][x] - atom[0][x];
        ca_c[x] = atom[2][x] - atom[1][x];
    }
    for (int x = 0; x < 3; x++) {
        int y = (x + 1) % 3, z = (x + 2) % 3;
        float cross = n_ca[y] * ca_c[z] - n_ca[z] * ca_c[y];
        atom[4][x] = ((-0.58273431f * cross + 0.56802827f * n_ca[x]) + -0.54067466f * ca_c[x]) + atom[1][x];
    }
}

void place_atoms(int length, const float *coordinates, Atoms *atoms) {
    memset(atoms, 0, (size_t)length * sizeof *atoms);
    for (int i = 0; i < length; i++) {
        float atom[ATOMS][3];
        memcpy(atom, coordinates + (size_t)i * 12, 12 * sizeof(float));
        place_cb(atom);
        for (int axis = 0; axis < 3; axis++)
            for (int pair = 0; pair < PAIRS; pair++) {
                atoms[i].first[axis][pair] = atom[FIRST[pair]][axis];
                atoms[i].second[axis][pair] = atom[SECOND[pair]][axis];
            }
    }
}

/* distances [length] from one residue; gives the largest */
static float measure(int length, int i, const float *ca, const float *mask, float *distance) {
    const float *x = ca, *y = ca + length, *z = ca + 2 * (size_t)length;
    float farthest = 0.0f;
    for (int j = 0; j < length; j++) {
        float dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
        float square = ((dx * dx + dy * dy) + dz * dz) + DISTANCE_EPSILON;
        distance[j] = mask[i] * mask[j] * __builtin_sqrtf(square);
    }
    for (int j = 0; j < length; j++) farthest = distance[j] > farthest ? distance[j] : farthest;
    for (int j = 0; j < length; j++) distance[j] = distance[j] + (1.0f - mask[i] * mask[j]) * farthest;
    return farthest;
}

void nearest(
    int length, int count, int residue, const float *ca, const float *mask, float *scratch, int32_t *index,
    float *distance) {
    measure(length, residue, ca, mask, scratch);
    int found = 0;
    for (int j = 0; j < length; j++) {
        float d = scratch[j];
        if (found == count && !(d < distance[count - 1])) continue;
        int at = found < count ? found++ : count - 1;
        /* Strictly nearer only: of equally far residues the earlier one stays in front. */
        for (; at > 0 && d < distance[at - 1]; at--) {
            distance[at] = distance[at - 1];
            index[at] = index[at - 1];
        }
        distance[at] = d;
        index[at] = j;
    }
}

void radial_bases(float distance, const Atoms *own, const Atoms *other, float *bases) {
    float all[1 + SLOTS];
    all[0] = distance;
    for (int c = 0; c < SLOTS; c += LANES) {
        vec square = v_set(0.0f);
        for (int axis = 0; axis < 3; axis++) {
            vec d = v_sub(v_load(own->first[axis] + c), v_load(other->second[axis] + c));
            square = v_fma(d, d, square);
        }
        v_store(all + 1 + c, v_sqrt(v_add(square, v_set(DISTANCE_EPSILON))));
    }
    float centre[BASES];
    for (int i = 0; i < BASES; i++) centre[i] = 2.0f + (20.0f * (float)i) / 15.0f;
    for (int d = 0; d < 1 + PAIRS; d++)
        for (int c = 0; c < BASES; c += LANES) {
            vec z = v_mul(v_sub(v_set(all[d]), v_load(centre + c)), v_set(0.8f)); /* widths of 1.25 angstrom */
            v_store(bases + d * BASES + c, v_exp(v_sub(v_set(0.0f), v_mul(z, z))));
        }
}
