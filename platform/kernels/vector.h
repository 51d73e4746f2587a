/* The vector layer: LANES floats at a time, the same operations at every width.
 *
 * Three variants of one source: x86-64-v4 (16 lanes), x86-64-v3 (8 lanes), and a scalar reference
 * (1 lane, portable C). A lane never looks at another, and each operation is one IEEE-754 rounding,
 * so which variant runs cannot change a bit. What adds up over lanes does so in `fold`'s order.
 *
 * Max and min are the processor's: the second operand where either is NaN.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define UNROLL _Pragma("GCC unroll 32")

#if defined(HELIX_V4)
#include <immintrin.h>
#define LANES 16
typedef __m512 vec;
INLINE vec v_set(float x) { return _mm512_set1_ps(x); }
INLINE vec v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec v_sqrt(vec a) { return _mm512_sqrt_ps(a); }
/* 2^n, where `shifted` is n + POWER_SHIFT */
INLINE vec v_power_of_two(vec shifted) {
    __m512i n = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(n, 23));
}
#elif defined(HELIX_V3)
#include <immintrin.h>
#define LANES 8
typedef __m256 vec;
INLINE vec v_set(float x) { return _mm256_set1_ps(x); }
INLINE vec v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec v_sqrt(vec a) { return _mm256_sqrt_ps(a); }
INLINE vec v_power_of_two(vec shifted) {
    __m256i n = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(n, 23));
}
#else
#define LANES 1
typedef float vec;
INLINE vec v_set(float x) { return x; }
INLINE vec v_load(const float *p) { return *p; }
INLINE void v_store(float *p, vec a) { *p = a; }
INLINE vec v_add(vec a, vec b) { return a + b; }
INLINE vec v_sub(vec a, vec b) { return a - b; }
INLINE vec v_mul(vec a, vec b) { return a * b; }
INLINE vec v_fma(vec a, vec b, vec c) { return __builtin_fmaf(a, b, c); }
INLINE vec v_max(vec a, vec b) { return a > b ? a : b; }
INLINE vec v_min(vec a, vec b) { return a < b ? a : b; }
INLINE vec v_sqrt(vec a) { return __builtin_sqrtf(a); }
INLINE vec v_power_of_two(vec shifted) {
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23;
    memcpy(&shifted, &bits, 4);
    return shifted;
}
#endif

/* Adding it rounds a float below 2^22 to an integer, which the low bits then hold. */
#define POWER_SHIFT 12582912.0f

/* The sum of 16 partial sums, by halves: the one order in which anything adds up over lanes. */
INLINE float fold(const float *part) {
    float eight[8], four[4];
    UNROLL for (int i = 0; i < 8; i++) eight[i] = part[i] + part[i + 8];
    UNROLL for (int i = 0; i < 4; i++) four[i] = eight[i] + eight[i + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}
