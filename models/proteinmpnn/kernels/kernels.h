/* What Python calls. Every extent and index has been checked there (native/runner.py); C trusts it. */
#pragma once

#include <stdint.h>

#include "network.h"

enum { HELIX_DONE = 0, HELIX_NO_MEMORY = 1, HELIX_NOT_A_NUMBER = 2 };

/* l = length ≥ 1, k = neighbours = min(48, l) */
typedef struct {
    int32_t length, neighbours;
    const float *coordinates; /* [l, 4, 3] */
    const float *mask;        /* [l] 0 or 1 */
    const int64_t *residue_index, *chain; /* [l] */
} Backbone;

typedef struct {
    float *nodes;              /* [l, 128] */
    int32_t *neighbours;       /* [l, k] in [0, l) */
    float *shared[LAYERS];     /* [l, k, 128] */
    float *unseen[LAYERS - 1]; /* [l, 128], of the layers after the first */
} Encoded;

/* b designs on one backbone */
typedef struct {
    int32_t count;
    const int32_t *order;      /* [b, l] permutations */
    const uint8_t *free;       /* [b, l] 1: choose this residue */
    const double *uniforms;    /* [b, l] in [0, 1) */
    const double *temperature; /* [b] */
    const uint8_t *allowed;    /* [b, 21] */
    int32_t *residues;         /* [b, l] in [0, 21); the chosen ones are written here */
    float *log_probabilities;  /* [b, l, 21], zero at first */
} Designs;

int helix_encode(const Network *network, const Backbone *backbone, Encoded *out);

/* messages [3] of [rows, k, 128]; nodes [rows, 128] → log_probabilities [rows, 21], seen [2] of [rows, 128] */
int helix_decoder_step(
    const Network *network, int32_t rows, int32_t k, const float *const *messages, const float *nodes,
    float *log_probabilities, float *const *seen);

int helix_decode(const Network *network, const Backbone *backbone, const Encoded *encoded, Designs *designs);
