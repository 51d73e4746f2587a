/* The encoder: a backbone to what every design on it shares.
 *
 * One residue's 48 edges at a time pass through all products of a layer, so they stay in the cache.
 * Shapes: l residues, k neighbours, 128 channels.
 */
#include <stdlib.h>

#include "geometry.h"
#include "kernels.h"
#include "nodes.h"
#include "norm.h"
#include "product.h"

typedef struct {
    const Network *network;
    const Backbone *backbone;
    Encoded *out;
    float *edges;       /* [l, k, c] lies where the last layer's shared part will be */
    Atoms *atoms;       /* [l] */
    float *ca;          /* [3, l] */
    float *row;         /* [l] */
    float *attend;      /* [l, k] 1 where both residues are whole */
    float *attended;    /* [l] its sums */
    float *own, *other; /* [l, c] the nodes' parts of a message's first layer */
    float *summed;      /* [l, c] */
    float *message;     /* [l, c] */
    float *hidden;      /* [l, 512] */
    float *radial;      /* [k, 400] */
    float *first, *second; /* [k, c] */
    int32_t *offset;    /* [k] */
} Run;

static const Start NOTHING = {NULL, NULL, NULL};

static Start from_bias(const float *bias) { return (Start){bias, NULL, NULL}; }

static void find_neighbours(Run *r, int i) {
    const Backbone *b = r->backbone;
    int k = b->neighbours;
    int32_t *index = r->out->neighbours + (size_t)i * k;
    float distance[NEIGHBOURS];
    nearest(b->length, k, i, r->ca, b->mask, r->row, index, distance);
    float total = 0.0f;
    for (int n = 0; n < k; n++) {
        int j = index[n];
        float attend = b->mask[i] * b->mask[j];
        r->attend[(size_t)i * k + n] = attend;
        total += attend;
        int64_t offset = b->residue_index[i] - b->residue_index[j] + 32;
        offset = offset < 0 ? 0 : offset > 64 ? 64 : offset;
        r->offset[n] = b->chain[i] == b->chain[j] ? (int32_t)offset : OFFSETS - 1;
        radial_bases(distance[n], r->atoms + i, r->atoms + j, r->radial + (size_t)n * RADIAL);
    }
    r->attended[i] = total;
}

static void make_edges(Run *r, int i) {
    const Network *net = r->network;
    int k = r->backbone->neighbours;
    find_neighbours(r, i);
    Start start = {NULL, net->offset, r->offset};
    product(k, RADIAL, CHANNELS, r->radial, net->radial.panels, start, r->first);
    for (int n = 0; n < k; n++) norm_row(r->first + n * CHANNELS, NULL, 1.0f, net->after_features);
    product(
        k, CHANNELS, CHANNELS, r->first, net->embed.panels, from_bias(net->embed.bias),
        r->edges + (size_t)i * k * CHANNELS);
}

/* What one residue's edges and nodes say to it, up to the layer before the last, into `second` or `sum`. */
static void hidden_messages(Run *r, int i, const Message *m, int with_nodes, float *sum) {
    int k = r->backbone->neighbours;
    const float *edges = r->edges + (size_t)i * k * CHANNELS;
    const int32_t *index = r->out->neighbours + (size_t)i * k;
    Start start = with_nodes ? (Start){r->own + (size_t)i * CHANNELS, r->other, index} : from_bias(m->edge.bias);
    product_gelu(k, CHANNELS, CHANNELS, edges, m->edge.panels, start, r->first);
    Start second = from_bias(m->second.bias);
    if (sum)
        product_gelu_sum(
            k, CHANNELS, CHANNELS, r->first, m->second.panels, second, r->attend + (size_t)i * k, sum);
    else
        product_gelu(k, CHANNELS, CHANNELS, r->first, m->second.panels, second, r->second);
}

static void node_parts(Run *r, const Message *m) {
    int l = r->backbone->length;
    product(l, CHANNELS, CHANNELS, r->out->nodes, m->own.panels, from_bias(m->edge.bias), r->own);
    product(l, CHANNELS, CHANNELS, r->out->nodes, m->other.panels, NOTHING, r->other);
}

static void renew_edges(Run *r, int i, const EncoderLayer *layer) {
    int k = r->backbone->neighbours;
    float *edges = r->edges + (size_t)i * k * CHANNELS;
    hidden_messages(r, i, &layer->edge, 1, NULL);
    product(
        k, CHANNELS, CHANNELS, r->second, layer->edge.third.panels, from_bias(layer->edge.third.bias), r->first);
    for (int n = 0; n < k; n++)
        norm_row(edges + n * CHANNELS, r->first + n * CHANNELS, 1.0f, layer->after_edge);
}

static void run_layer(Run *r, int number) {
    const EncoderLayer *layer = r->network->encoder + number;
    int l = r->backbone->length;
    if (number > 0) node_parts(r, &layer->node);
    for (int i = 0; i < l; i++) hidden_messages(r, i, &layer->node, number > 0, r->summed + (size_t)i * CHANNELS);
    NodeUpdate update = {
        &layer->node.third, &layer->after_message, &layer->after_dense, &layer->widen, &layer->narrow,
        r->attended, r->message, r->hidden,
    };
    renew_nodes(l, r->out->nodes, r->summed, &update);
    for (int i = 0; i < l; i++)
        if (r->backbone->mask[i] == 0.0f) memset(r->out->nodes + (size_t)i * CHANNELS, 0, CHANNELS * sizeof(float));
    node_parts(r, &layer->edge);
    for (int i = 0; i < l; i++) renew_edges(r, i, layer);
}

/* The decoder's parts that no choice of a residue changes. */
static void share(Run *r) {
    int l = r->backbone->length, k = r->backbone->neighbours;
    Encoded *out = r->out;
    for (int d = 0; d < LAYERS; d++) {
        const Message *m = &r->network->decoder[d].message;
        float *unseen = d ? out->unseen[d - 1] : r->other;
        product(l, CHANNELS, CHANNELS, out->nodes, m->other.panels, NOTHING, unseen);
        if (d == 0) product(l, CHANNELS, CHANNELS, out->nodes, m->own.panels, from_bias(m->edge.bias), r->own);
    }
    for (int i = 0; i < l; i++) {
        const float *edges = r->edges + (size_t)i * k * CHANNELS;
        for (int d = 0; d < LAYERS; d++) {
            const Message *m = &r->network->decoder[d].message;
            Start start = from_bias(m->edge.bias);
            if (d == 0) start = (Start){r->own + (size_t)i * CHANNELS, r->other, out->neighbours + (size_t)i * k};
            float *to = d + 1 < LAYERS ? out->shared[d] + (size_t)i * k * CHANNELS : r->first;
            product(k, CHANNELS, CHANNELS, edges, m->edge.panels, start, to);
        }
        memcpy(r->edges + (size_t)i * k * CHANNELS, r->first, (size_t)k * CHANNELS * sizeof(float));
    }
}

/* Hands out parts of one allocation; the first round, with no memory, only counts. */
static size_t lay_out(Run *r, char *memory) {
    size_t l = (size_t)r->backbone->length, k = (size_t)r->backbone->neighbours, at = 0;
#define PART(field, count)                                              \
    do {                                                                \
        if (memory) r->field = (void *)(memory + at);                   \
        at += ((count) * sizeof *r->field + 63) / 64 * 64;              \
    } while (0)
    PART(atoms, l);
    PART(ca, 3 * l);
    PART(row, l);
    PART(attend, l * k);
    PART(attended, l);
    PART(own, l * CHANNELS);
    PART(other, l * CHANNELS);
    PART(summed, l * CHANNELS);
    PART(message, l * CHANNELS);
    PART(hidden, l * HIDDEN);
    PART(radial, k * RADIAL);
    PART(first, k * CHANNELS);
    PART(second, k * CHANNELS);
    PART(offset, k);
#undef PART
    return at;
}

EXPORT int helix_encode(const Network *network, const Backbone *backbone, Encoded *out) {
    Run r = {.network = network, .backbone = backbone, .out = out, .edges = out->shared[LAYERS - 1]};
    int l = backbone->length;
    char *memory = aligned_alloc(64, lay_out(&r, NULL));
    if (!memory) return HELIX_NO_MEMORY;
    lay_out(&r, memory);
    memset(out->nodes, 0, (size_t)l * CHANNELS * sizeof(float));
    place_atoms(l, backbone->coordinates, r.atoms);
    for (int axis = 0; axis < 3; axis++)
        for (int i = 0; i < l; i++) r.ca[(size_t)axis * l + i] = backbone->coordinates[(size_t)i * 12 + 3 + axis];
    for (int i = 0; i < l; i++) make_edges(&r, i);
    for (int number = 0; number < LAYERS; number++) run_layer(&r, number);
    share(&r);
    free(memory);
    return HELIX_DONE;
}
