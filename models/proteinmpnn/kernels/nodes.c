/* See nodes.h. */
#include "nodes.h"

#include <stddef.h>

#include "norm.h"
#include "product.h"

#define MESSAGE_SCALE 30.0f

void renew_nodes(int rows, float *nodes, const float *summed, const NodeUpdate *u) {
    const Start nothing = {NULL, NULL, NULL}, widen = {u->widen->bias, NULL, NULL};
    const Start narrow = {u->narrow->bias, NULL, NULL};
    product(rows, CHANNELS, CHANNELS, summed, u->third->panels, nothing, u->message);
    for (int i = 0; i < rows; i++) {
        float *message = u->message + (size_t)i * CHANNELS;
        vec count = v_set(u->counts[i]);
        for (int c = 0; c < CHANNELS; c += LANES)
            v_store(message + c, v_fma(count, v_load(u->third->bias + c), v_load(message + c)));
        norm_row(nodes + (size_t)i * CHANNELS, message, MESSAGE_SCALE, *u->after_message);
    }
    product_gelu(rows, CHANNELS, HIDDEN, nodes, u->widen->panels, widen, u->hidden);
    product(rows, HIDDEN, CHANNELS, u->hidden, u->narrow->panels, narrow, u->message);
    for (int i = 0; i < rows; i++)
        norm_row(nodes + (size_t)i * CHANNELS, u->message + (size_t)i * CHANNELS, 1.0f, *u->after_dense);
}
