#define _GNU_SOURCE
#include "sampling.h"

#include <math.h>
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

int64_t sampling_draw_gap(sampling_rng *rng, uint32_t interval_bytes) {
    double uniform = ((double)(next_random(rng) >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
    return (int64_t)(-log(uniform) * interval_bytes) + 1;
}

double sampling_weight(uint64_t size_bytes, uint32_t interval_bytes) {
    if (size_bytes == 0) size_bytes = 1; /* an empty block still costs an allocation */
    return -1.0 / expm1(-(double)size_bytes / interval_bytes);
}
