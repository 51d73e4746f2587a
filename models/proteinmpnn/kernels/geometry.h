/* From coordinates to each residue's neighbours and the radial bases of their distances. */
#pragma once

#include <stdint.h>

enum {
    ATOMS = 5,  /* N, CA, C, O, and an ideal CB */
    PAIRS = 24, /* distances between two residues' atoms, after CA to CA */
    SLOTS = 32, /* PAIRS, padded to whole vectors */
};

/* One residue's atoms as the 24 pairs take them, axis by axis. */
typedef struct {
    float first[3][SLOTS], second[3][SLOTS];
} Atoms;

/* atoms [l] from coordinates [l, 4, 3] (angstrom) */
void place_atoms(int length, const float *coordinates, Atoms *atoms);

/* The `count` nearest residues by CA, nearest first, of equally far ones the first; a residue without
 * a whole backbone counts as being as far as the farthest. ca [3][length]; scratch [length]. */
void nearest(
    int length, int count, int residue, const float *ca, const float *mask, float *scratch, int32_t *index,
    float *distance);

/* bases [400]: of the CA distance, then of the 24 pairs. */
void radial_bases(float distance, const Atoms *own, const Atoms *other, float *bases);
