/* One step of the decoder for several residues at once: of one design or of many. */
#pragma once

#include <stddef.h>

#include "network.h"

enum { STEP_ROWS = 64 }; /* at most; more rows are more steps */

/* What one residue takes from its neighbours in one layer: shared [k, 128] + sent[n], and `sent` may be NULL. */
typedef struct {
    const float *shared;
    const float *sent[NEIGHBOURS];
    int has_sent;
} Incoming;

/* Fills `incoming` for `row` and `layer`. */
typedef void (*Gather)(const void *from, int row, int layer, Incoming *incoming);

typedef struct {
    float nodes[STEP_ROWS * CHANNELS];
    float own[STEP_ROWS * CHANNELS];
    float summed[STEP_ROWS * CHANNELS];
    float message[STEP_ROWS * CHANNELS];
    float hidden[STEP_ROWS * HIDDEN];
    float first[NEIGHBOURS * CHANNELS];
    float counts[STEP_ROWS];
    float seen[LAYERS - 1][STEP_ROWS * CHANNELS]; /* out */
    float logits[STEP_ROWS * LOGITS];             /* out; AMINO_ACIDS of each row count */
} Step;

/* Runs the decoder's layers on `rows` residues with k neighbours each, whose nodes are in `step`. */
void run_step(const Network *network, int rows, int k, Gather gather, const void *from, Step *step);
