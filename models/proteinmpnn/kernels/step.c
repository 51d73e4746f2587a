/* See step.h. */
#include "step.h"

#include "elementary.h"
#include "nodes.h"
#include "product.h"

/* out [k, 128] = GELU((shared + sent) + own) */
static void receive(int k, const Incoming *in, const float *own, float *out) {
    for (int n = 0; n < k; n++)
        UNROLL for (int c = 0; c < CHANNELS; c += LANES) {
            vec x = v_load(in->shared + (size_t)n * CHANNELS + c);
            if (in->has_sent) x = v_add(x, v_load(in->sent[n] + c));
            if (own) x = v_add(x, v_load(own + c));
            v_store(out + n * CHANNELS + c, v_gelu(x));
        }
}

void run_step(const Network *network, int rows, int k, Gather gather, const void *from, Step *step) {
    const Start nothing = {NULL, NULL, NULL};
    for (int row = 0; row < rows; row++) step->counts[row] = (float)k;
    for (int d = 0; d < LAYERS; d++) {
        const DecoderLayer *layer = network->decoder + d;
        const Message *m = &layer->message;
        /* In the first layer the nodes are the encoder's, and their part is in `shared`. */
        if (d > 0) product(rows, CHANNELS, CHANNELS, step->nodes, m->own.panels, nothing, step->own);
        for (int row = 0; row < rows; row++) {
            Incoming incoming;
            gather(from, row, d, &incoming);
            receive(k, &incoming, d > 0 ? step->own + (size_t)row * CHANNELS : NULL, step->first);
            product_gelu_sum(
                k, CHANNELS, CHANNELS, step->first, m->second.panels, (Start){m->second.bias, NULL, NULL}, NULL,
                step->summed + (size_t)row * CHANNELS);
        }
        NodeUpdate update = {
            &m->third, &layer->after_message, &layer->after_dense, &layer->widen, &layer->narrow,
            step->counts, step->message, step->hidden,
        };
        renew_nodes(rows, step->nodes, step->summed, &update);
        if (d + 1 < LAYERS)
            product(rows, CHANNELS, CHANNELS, step->nodes, layer[1].message.other.panels, nothing, step->seen[d]);
    }
    Start start = {network->output.bias, NULL, NULL};
    product(rows, CHANNELS, LOGITS, step->nodes, network->output.panels, start, step->logits);
}
