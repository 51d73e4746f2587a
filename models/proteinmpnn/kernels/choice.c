/* See choice.h. */
#include "choice.h"

#include <string.h>

#include "network.h"

#define INTEGER_SHIFT 6755399441055744.0 /* 1.5 * 2^52: adding it rounds to an integer */

static double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* exp(x) for x ≤ 0 */
static double exponential(double x) {
    static const double term[] = {
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0,
    };
    if (x != x) return x;
    if (x < -745.2) return 0.0;
    double power = (x * 1.4426950408889634 + INTEGER_SHIFT) - INTEGER_SHIFT;
    double rest = (x - power * 0.6931471803691238) - power * 1.9082149292705877e-10;
    double result = term[0];
    for (unsigned i = 1; i < sizeof term / sizeof *term; i++) result = result * rest + term[i];
    int exponent = (int)power;
    /* Two exact steps and one rounding where the result is subnormal. */
    return exponent < -1000 ? result * power_of_two(exponent + 64) * power_of_two(-64)
                            : result * power_of_two(exponent);
}

/* ln(x) for finite x ≥ 1 */
static double logarithm(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double f = (m - 1.0) / (m + 1.0), square = f * f, sum = 0.0;
    for (int n = 21; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
    return exponent * 0.6931471805599453 + 2.0 * f * sum;
}

void log_softmax(const float *logits, float *log_probabilities) {
    double largest = logits[0], total = 0.0;
    for (int a = 1; a < AMINO_ACIDS; a++) largest = logits[a] > largest ? logits[a] : largest;
    for (int a = 0; a < AMINO_ACIDS; a++) total += exponential(logits[a] - largest);
    double log_total = total >= 1.0 ? logarithm(total) : total; /* not a number: stays so */
    for (int a = 0; a < AMINO_ACIDS; a++) log_probabilities[a] = (float)((logits[a] - largest) - log_total);
}

int choose_residue(const float *log_probabilities, const uint8_t *allowed, double temperature, double uniform) {
    double scaled[AMINO_ACIDS], reached[AMINO_ACIDS], largest = 0.0, total = 0.0;
    int any = 0, last = -1;
    for (int a = 0; a < AMINO_ACIDS; a++) {
        scaled[a] = (double)log_probabilities[a] / temperature;
        if (allowed[a] && (!any || scaled[a] > largest)) largest = scaled[a];
        any |= allowed[a];
    }
    for (int a = 0; a < AMINO_ACIDS; a++) {
        double below = scaled[a] - largest;
        double weight = allowed[a] ? exponential(below > 0.0 ? 0.0 : below) : 0.0;
        if (weight > 0.0) last = a;
        total += weight;
        reached[a] = total;
    }
    if (!(total > 0.0)) return -1;
    double threshold = uniform * total;
    for (int a = 0; a < AMINO_ACIDS; a++)
        if (reached[a] > threshold) return a;
    return last;
}
