/* Decoding whole designs: residues whose answers don't wait for each other are decoded together.
 *
 * A residue depends only on those of its neighbours that come before it in the order, so designs
 * fall into levels. All residues of one level, of all designs, run as rows of the same products; a
 * row's bits don't depend on the others (product.h), so neither does an answer.
 */
#include <stdlib.h>

#include "choice.h"
#include "elementary.h"
#include "kernels.h"
#include "step.h"

typedef struct {
    int32_t design, residue;
} Item;

typedef struct {
    const Network *network;
    const Backbone *backbone;
    const Encoded *encoded;
    Designs *designs;
    int32_t *rank;           /* [b, l] place in the order */
    int32_t *level;          /* [b, l] */
    int32_t *start;          /* [levels + 1] of each level in `items` */
    Item *items;             /* [b * l] by level */
    float *sent[LAYERS - 1]; /* [b, l, c] what decoded residues add to messages, after the first layer */
    const Item *now;         /* rows of the current step */
    Step step;
} Decode;

static const float NOTHING_SENT[CHANNELS];

/* Ranks and levels of one design; gives the number of levels. */
static int schedule(const Decode *d, int design) {
    int l = d->backbone->length, k = d->backbone->neighbours, levels = 0;
    const int32_t *order = d->designs->order + (size_t)design * l;
    int32_t *rank = d->rank + (size_t)design * l, *level = d->level + (size_t)design * l;
    for (int place = 0; place < l; place++) rank[order[place]] = place;
    for (int place = 0; place < l; place++) {
        int residue = order[place], after = 0;
        for (int n = 0; n < k; n++) {
            int other = d->encoded->neighbours[(size_t)residue * k + n];
            if (rank[other] < place && d->backbone->mask[other] != 0.0f && level[other] >= after)
                after = level[other] + 1;
        }
        level[residue] = after;
        if (after >= levels) levels = after + 1;
    }
    return levels;
}

/* Sorts whole residues by level, then design, then position. */
static int sort_items(Decode *d) {
    int l = d->backbone->length, count = d->designs->count, levels = 0;
    for (int b = 0; b < count; b++) {
        int of_design = schedule(d, b);
        if (of_design > levels) levels = of_design;
    }
    memset(d->start, 0, ((size_t)levels + 1) * sizeof *d->start);
    for (int pass = 0; pass < 2; pass++) {
        for (int b = 0; b < count; b++)
            for (int i = 0; i < l; i++) {
                int level = d->level[(size_t)b * l + i];
                if (d->backbone->mask[i] == 0.0f) continue;
                if (pass == 0) d->start[level + 1]++;
                else d->items[d->start[level]++] = (Item){b, i};
            }
        if (pass == 0)
            for (int g = 0; g < levels; g++) d->start[g + 1] += d->start[g];
        else
            for (int g = levels; g > 0; g--) d->start[g] = d->start[g - 1];
    }
    d->start[0] = 0;
    return levels;
}

static void gather(const void *from, int row, int layer, Incoming *in) {
    const Decode *d = from;
    int l = d->backbone->length, k = d->backbone->neighbours;
    Item item = d->now[row];
    size_t of_design = (size_t)item.design * l;
    const int32_t *rank = d->rank + of_design, *residues = d->designs->residues + of_design;
    const int32_t *index = d->encoded->neighbours + (size_t)item.residue * k;
    const float *table = d->network->decoder[0].residue;
    in->shared = d->encoded->shared[layer] + (size_t)item.residue * k * CHANNELS;
    in->has_sent = 1;
    for (int n = 0; n < k; n++) {
        size_t other = (size_t)index[n];
        int known = rank[other] < rank[item.residue];
        if (layer == 0) in->sent[n] = known ? table + (size_t)residues[other] * CHANNELS : NOTHING_SENT;
        else if (known) in->sent[n] = d->sent[layer - 1] + (of_design + other) * CHANNELS;
        else in->sent[n] = d->encoded->unseen[layer - 1] + other * CHANNELS;
    }
}

/* What a residue sends from now on: its amino acid's part, and what its nodes said where there are any. */
static void send(Decode *d, Item item, int row) {
    size_t at = (size_t)item.design * d->backbone->length + item.residue;
    for (int layer = 1; layer < LAYERS; layer++) {
        const float *part = d->network->decoder[layer].residue + (size_t)d->designs->residues[at] * CHANNELS;
        float *sent = d->sent[layer - 1] + at * CHANNELS;
        for (int c = 0; c < CHANNELS; c += LANES) {
            vec x = v_load(part + c);
            if (row >= 0) x = v_add(v_load(d->step.seen[layer - 1] + (size_t)row * CHANNELS + c), x);
            v_store(sent + c, x);
        }
    }
}

static int settle(Decode *d, int row) {
    Designs *all = d->designs;
    Item item = d->now[row];
    size_t at = (size_t)item.design * d->backbone->length + item.residue;
    float *log_probabilities = all->log_probabilities + at * AMINO_ACIDS;
    log_softmax(d->step.logits + (size_t)row * LOGITS, log_probabilities);
    if (all->free[at]) {
        int chosen = choose_residue(
            log_probabilities, all->allowed + (size_t)item.design * AMINO_ACIDS, all->temperature[item.design],
            all->uniforms[at]);
        if (chosen < 0) return HELIX_NOT_A_NUMBER;
        all->residues[at] = chosen;
    }
    send(d, item, row);
    return HELIX_DONE;
}

static int run_items(Decode *d, int first, int rows) {
    d->now = d->items + first;
    for (int row = 0; row < rows; row++)
        memcpy(
            d->step.nodes + (size_t)row * CHANNELS, d->encoded->nodes + (size_t)d->now[row].residue * CHANNELS,
            CHANNELS * sizeof(float));
    run_step(d->network, rows, d->backbone->neighbours, gather, d, &d->step);
    int status = HELIX_DONE;
    for (int row = 0; row < rows && status == HELIX_DONE; row++) status = settle(d, row);
    return status;
}

static int decode_all(Decode *d) {
    int l = d->backbone->length, levels = sort_items(d), status = HELIX_DONE;
    for (int b = 0; b < d->designs->count; b++)
        for (int i = 0; i < l; i++)
            if (d->backbone->mask[i] == 0.0f) send(d, (Item){b, i}, -1);
    for (int g = 0; g < levels; g++)
        for (int at = d->start[g]; at < d->start[g + 1] && status == HELIX_DONE; at += STEP_ROWS) {
            int left = d->start[g + 1] - at;
            status = run_items(d, at, left < STEP_ROWS ? left : STEP_ROWS);
        }
    return status;
}

EXPORT int helix_decode(const Network *network, const Backbone *backbone, const Encoded *encoded, Designs *designs) {
    size_t all = (size_t)designs->count * backbone->length, row = CHANNELS * sizeof(float);
    int status = HELIX_NO_MEMORY;
    Decode *d = calloc(1, sizeof *d);
    char *memory = malloc(all * (2 * sizeof(int32_t) + sizeof(Item)) + ((size_t)backbone->length + 1) * 4);
    float *sent = malloc(all * row * (LAYERS - 1));
    if (d && memory && sent) {
        d->network = network, d->backbone = backbone, d->encoded = encoded, d->designs = designs;
        d->items = (Item *)memory;
        d->rank = (int32_t *)(d->items + all);
        d->level = d->rank + all;
        d->start = d->level + all;
        for (int layer = 0; layer < LAYERS - 1; layer++) d->sent[layer] = sent + layer * all * CHANNELS;
        status = decode_all(d);
    }
    free(sent);
    free(memory);
    free(d);
    return status;
}

/* ---- the same step for messages that are summed already --------------------------------------- */

typedef struct {
    const float *const *messages;
    int first, k;
} Messages;

static void take(const void *from, int row, int layer, Incoming *in) {
    const Messages *m = from;
    in->shared = m->messages[layer] + (size_t)(m->first + row) * m->k * CHANNELS;
    in->has_sent = 0;
}

EXPORT int helix_decoder_step(
    const Network *network, int32_t rows, int32_t k, const float *const *messages, const float *nodes,
    float *log_probabilities, float *const *seen) {
    Step *step = malloc(sizeof *step);
    if (!step) return HELIX_NO_MEMORY;
    for (int first = 0; first < rows; first += STEP_ROWS) {
        int now = rows - first < STEP_ROWS ? rows - first : STEP_ROWS;
        Messages from = {messages, first, k};
        size_t at = (size_t)first * CHANNELS, size = (size_t)now * CHANNELS * sizeof(float);
        memcpy(step->nodes, nodes + at, size);
        run_step(network, now, k, take, &from, step);
        for (int row = 0; row < now; row++)
            log_softmax(step->logits + (size_t)row * LOGITS, log_probabilities + (size_t)(first + row) * AMINO_ACIDS);
        for (int layer = 0; layer < LAYERS - 1; layer++) memcpy(seen[layer] + at, step->seen[layer], size);
    }
    free(step);
    return HELIX_DONE;
}
