/* The network as C sees it: extents, and where each layer's numbers lie.
 *
 * Every field is a pointer to float, so Python fills these structs as arrays of addresses
 * (proteinmpnn_model/native/weights.py holds the same order).
 */
#pragma once

enum {
    CHANNELS = 128,
    HIDDEN = 512,
    NEIGHBOURS = 48,
    AMINO_ACIDS = 21,
    LAYERS = 3,
    RADIAL = 400,        /* 25 distances, 16 bases each */
    OFFSETS = 66,        /* 65 clipped offsets along a chain, and "another chain" */
    LOGITS = 64,         /* AMINO_ACIDS, padded to what a product writes */
};

#include "norm.h"

/* Rows of `inner` inputs to `columns` outputs; weights in panels of 16 columns (product.h). */
typedef struct {
    const float *panels, *bias;
} Linear;

/* Three linear layers over [own node, edge, other node]; the first one is split by what it takes. */
typedef struct {
    Linear own, edge, other, second, third;
} Message;

typedef struct {
    Message node, edge;
    Norm after_message, after_dense, after_edge;
    Linear widen, narrow;
} EncoderLayer;

typedef struct {
    Message message;
    const float *residue; /* [21, 128] what each amino acid adds to a message */
    Norm after_message, after_dense;
    Linear widen, narrow;
} DecoderLayer;

typedef struct {
    const float *offset; /* [66, 128] the part of an edge that the offset along the chain gives */
    Linear radial;
    Norm after_features;
    Linear embed;
    EncoderLayer encoder[LAYERS];
    DecoderLayer decoder[LAYERS];
    Linear output;
} Network;
