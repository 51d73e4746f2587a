/* From logits to log-probabilities, and from those to a residue.
 *
 * In float64, one value after another; `exp` is proteinmpnn_model/portable.py's, operation for
 * operation, and a choice is decode.py's choose_residue: a test compares them bit for bit.
 */
#pragma once

#include <stdint.h>

/* logits [21] → log p [21] */
void log_softmax(const float *logits, float *log_probabilities);

/* An amino acid, or -1 when a weight is not a number. allowed [21] has at least one 1. */
int choose_residue(const float *log_probabilities, const uint8_t *allowed, double temperature, double uniform);
