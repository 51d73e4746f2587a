/* Nodes after their messages: two norms around a message and a feed-forward layer. */
#pragma once

#include "network.h"

typedef struct {
    const Linear *third; /* of the message: linear, so messages are summed before it */
    const Norm *after_message, *after_dense;
    const Linear *widen, *narrow;
    const float *counts; /* [rows] how many messages were summed: third's bias counts once for each */
    float *message;      /* [rows, 128] scratch */
    float *hidden;       /* [rows, 512] scratch */
} NodeUpdate;

/* nodes, summed: [rows, 128] */
void renew_nodes(int rows, float *nodes, const float *summed, const NodeUpdate *update);
