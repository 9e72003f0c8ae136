/* When to sample, and how much a sample stands for.
 *
 * A sample is taken at the points of a Poisson process over allocated bytes: the gap to
 * the next point is exponential with the mean `interval`. A block of `size` bytes holds at
 * least one point with probability 1 - exp(-size / interval), so each sample counts for the
 * inverse of that (Horvitz and Thompson, 1952; Go's runtime/pprof scales the same way).
 * The process is memoryless: a gap may be discarded and drawn anew at any moment.
 */
#ifndef STANCH_SAMPLING_H
#define STANCH_SAMPLING_H

#include <stdint.h>

typedef struct {
    uint64_t state; /* never 0 once seeded */
} sampling_rng;

/* Bytes to the next sample, at least 1. Seeds the generator on first use. */
int64_t sampling_draw_gap(sampling_rng *rng, uint32_t interval_bytes);

/* How many blocks of this size one sample stands for, at least 1. */
double sampling_weight(uint64_t size_bytes, uint32_t interval_bytes);

#endif
