#define _GNU_SOURCE
#include "sampling.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "idmap.h"

static uint64_t fresh_seed(const void *somewhere) {
    uint64_t seed = clock_ns(CLOCK_MONOTONIC);
    seed = idmap_mix(seed ^ ((uint64_t)getpid() << 40) ^ (uintptr_t)somewhere);
    return seed ? seed : 1;
}

/* xorshift64* (Vigna, 2016): the gaps need speed and independence, not secrecy. */
static uint64_t next_random(sampling_rng *rng) {
    if (!rng->state) rng->state = fresh_seed(rng);
    uint64_t x = rng->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    rng->state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* log(x) for a normal x in (0, 1], off by less than 1e-9: x = m * 2^e with m in [0.7, 1.4], and
 * log(m) = 2 atanh((m - 1) / (m + 1)). The gaps' mean is thereby off by less than that, and unlike
 * libm's it brings no cold page of code and tables into a host that computes no logarithms. */
static double fast_log(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits -= 0x3fe6666666666666ull; /* the bits of 0.7 */
    int64_t exponent = (int64_t)bits >> 52;
    bits = (bits & 0xfffffffffffffull) + 0x3fe6666666666666ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    double t = (m - 1.0) / (m + 1.0), u = t * t;
    double series =
        1.0 + u * (1.0 / 3 + u * (1.0 / 5 + u * (1.0 / 7 + u * (1.0 / 9 + u * (1.0 / 11)))));
    return (double)exponent * 0.69314718055994530942 + 2.0 * t * series;
}

int64_t sampling_draw_gap(sampling_rng *rng, uint32_t interval_bytes) {
    double uniform = ((double)(next_random(rng) >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
    return (int64_t)(-fast_log(uniform) * interval_bytes) + 1;
}

double sampling_weight(uint64_t size_bytes, uint32_t interval_bytes) {
    if (size_bytes == 0) size_bytes = 1; /* an empty block still costs an allocation */
    double x = (double)size_bytes / interval_bytes;
    /* 1 / (1 - exp(-x)) = 1/x + 1/2 + x/12 - x^3/720 + x^5/30240 - ..., the generating function of
     * the Bernoulli numbers; the term left out is below 4e-9 of the whole. */
    if (x < 0.5) return 1.0 / x + 0.5 + x * (1.0 / 12 + x * x * (x * x / 30240 - 1.0 / 720));
    return -1.0 / expm1(-x);
}
